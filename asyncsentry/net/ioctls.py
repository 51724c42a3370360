"""What an ioctl(2) of a socket needs of its caller: guest memory to answer in."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class Memory(Protocol):
    """The part of a memory manager used here."""

    def read(self, address: int, count: int, /) -> bytes:
        """Copies guest memory out."""

    def write(self, address: int, data: bytes, /) -> None:
        """Copies into guest memory."""

    def write_i32(self, address: int, value: int, /) -> None:
        """Writes a C ``int``."""


@runtime_checkable
class MemoryHolder(Protocol):
    """A guest thread, seen as the owner of memory."""

    memory: Memory
