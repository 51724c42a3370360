"""What programs are told about the machine at start: processor capabilities, and the first words on their stack.

See getauxval(3), Linux's create_elf_tables() in fs/binfmt_elf.c.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from asyncsentry.abi import auxvec_h as abi

_ENTRY = struct.Struct("<QQ")
_MINSIGSTKSZ_FALLBACK = 2048


class Hardware(NamedTuple):
    """What the host's kernel tells every program of the processor."""

    hwcap: int = 0
    hwcap2: int = 0
    minsigstksz: int = _MINSIGSTKSZ_FALLBACK

    @classmethod
    def capture(cls) -> Hardware:
        """Reads our own auxiliary vector."""
        try:
            data = Path("/proc/self/auxv").read_bytes()
        except OSError:
            return cls()
        found = dict(_ENTRY.iter_unpack(data[: len(data) // 16 * 16]))
        minsigstksz = found.get(abi.AT_MINSIGSTKSZ, _MINSIGSTKSZ_FALLBACK)
        return cls(found.get(abi.AT_HWCAP, 0), found.get(abi.AT_HWCAP2, 0), minsigstksz)


class InitialStack(NamedTuple):
    """The bytes at the top of a new stack, and where their parts lie."""

    pointer: int
    """Where argc is: the first stack pointer."""
    content: bytes
    """What belongs from there up to the top."""
    arg_start: int
    arg_end: int
    env_end: int
    auxv: bytes


def build_stack(top: int, slack: int, argv: list[bytes], envp: list[bytes], execfn: bytes, random: bytes,
                entries: list[tuple[int, int]]) -> InitialStack:
    """Lays out strings, vectors and auxiliary vector below ``top``.

    ``entries`` are the auxiliary values known so far; those that point into the stack are added here.
    """
    arguments = b"".join(argument + b"\0" for argument in argv)
    environment = b"".join(variable + b"\0" for variable in envp)
    tail = arguments + environment + execfn + b"\0" + bytes(8)
    arg_start = top - len(tail)
    env_start = arg_start + len(arguments)
    execfn_at = env_start + len(environment)
    platform = b"x86_64\0"
    platform_at = ((arg_start - slack) & ~15) - 16
    random_at = platform_at - 16
    auxv = b"".join(
        _ENTRY.pack(*entry)
        for entry in (
            *entries, (abi.AT_RANDOM, random_at), (abi.AT_EXECFN, execfn_at), (abi.AT_PLATFORM, platform_at),
            (abi.AT_NULL, 0),
        )
    )  # fmt: skip
    vectors = struct.pack("<Q", len(argv)) + _pointers(arg_start, argv) + _pointers(env_start, envp) + auxv
    pointer = (random_at - len(vectors)) & ~15
    content = vectors.ljust(random_at - pointer, b"\0") + random + platform
    content = content.ljust(arg_start - pointer, b"\0") + tail
    return InitialStack(pointer, content, arg_start, env_start, execfn_at, auxv)


def _pointers(address: int, strings: list[bytes]) -> bytes:
    pointers = []
    for string in strings:
        pointers.append(address)
        address += len(string) + 1
    return struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0)
