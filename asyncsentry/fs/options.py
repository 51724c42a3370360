"""The options of mount(2), text from guests: names and values, sizes, numbers."""

from __future__ import annotations

from asyncsentry import errnos
from asyncsentry.fs.file import OFFSET_MAX

_SUFFIXES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_ID_MAX = (1 << 32) - 2
"""The largest user or group: one more means none at all."""
_NUMBER_MAX = (1 << 64) - 1


def parse_options(data: str) -> dict[str, str]:
    """Splits ``size=1m,mode=755`` into names and values."""
    pairs = (item.partition("=") for item in data.split(",") if item)
    return {name: value for name, _, value in pairs}


def parse_size(text: str, memory: int) -> int:
    """Reads a size with an optional suffix; a percentage is of ``memory``. EINVAL for anything else."""
    scale = _SUFFIXES.get(text[-1:].lower())
    if text.endswith("%"):
        size = parse_number(text[:-1]) * memory // 100
    else:
        size = parse_number(text[:-1]) * scale if scale else parse_number(text)
    if size > OFFSET_MAX:
        raise errnos.EINVAL(f"a size of {text!r}")
    return size


def parse_id(text: str) -> int:
    """Reads a user or group."""
    return parse_number(text, largest=_ID_MAX)


def parse_number(text: str, base: int = 10, largest: int = _NUMBER_MAX) -> int:
    """Reads a number; EINVAL if it is none, negative or too large."""
    try:
        number = int(text, base)
    except ValueError:
        raise errnos.EINVAL(f"{text!r} is no number") from None
    if not 0 <= number <= largest:
        raise errnos.EINVAL(f"{number} is out of range")
    return number
