"""What guests may know of the host: processors and memory, read once before the sandbox is confined.

After that the sentry opens no host path, so what changes with time (free memory) comes from system calls
that need none. See proc_cpuinfo(5), sysconf(3).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts of the host as one sandbox shows them."""

    cpu_count: int = 1
    memory_bytes: int = 1 << 30
    cpuinfo: tuple[str, ...] = field(default=())
    """One paragraph of /proc/cpuinfo per processor shown, without its ``processor`` line."""
    threads_max: int = 1 << 15
    """Host threads one sandbox may have, so that the host keeps a quarter of its numbers."""

    @classmethod
    def capture(cls, cpu_limit: int | None = None) -> HostFacts:
        """Reads them from the running host; ``cpu_limit`` shows fewer processors than it has."""
        count = len(os.sched_getaffinity(0))
        if cpu_limit is not None:
            count = max(1, min(count, cpu_limit))
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * _PAGE_SIZE
        return cls(count, memory_bytes, _read_cpuinfo(count), _read_threads_max())

    def memory_free_bytes(self) -> int:
        """Asks the host how much memory is free now."""
        return os.sysconf("SC_AVPHYS_PAGES") * _PAGE_SIZE

    def cpu_list(self) -> str:
        """Gives the processors as a list, ``0-3``."""
        return "0" if self.cpu_count == 1 else f"0-{self.cpu_count - 1}"

    def cpu_mask(self) -> str:
        """Gives the processors as comma-separated groups of eight hexadecimal digits."""
        return format_mask((1 << self.cpu_count) - 1)


def format_mask(mask: int) -> str:
    """Formats a bit mask as Linux does, in groups of 32 bits."""
    words = [f"{mask & 0xFFFFFFFF:x}"]
    while mask := mask >> 32:
        words[-1] = words[-1].rjust(8, "0")
        words.append(f"{mask & 0xFFFFFFFF:x}")
    return ",".join(reversed(words))


def format_list(numbers: list[int]) -> str:
    """Formats sorted numbers as Linux lists them, ``0-2,5``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ranges)


def _read_threads_max() -> int:
    numbers = []
    for name in ("pid_max", "threads-max"):
        try:
            numbers.append(int(Path(f"/proc/sys/kernel/{name}").read_text()))
        except (OSError, ValueError):
            numbers.append(1 << 15)  # what small hosts have
    return min(numbers) * 3 // 4


def _read_cpuinfo(count: int) -> tuple[str, ...]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.startswith("processor")]
    return tuple(paragraph.split("\n", 1)[1] for paragraph in paragraphs[:count] if "\n" in paragraph)
