"""Copying in and out of guest memory: the typed accessors every syscall handler uses.

Whatever comes out is hostile: copy it once, check the copy, use the copy.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

from asyncsentry.errnos import EFAULT, EINVAL, ENAMETOOLONG
from asyncsentry.platforms.base import PAGE_SIZE, AddressSpace

PATH_MAX = 4096
IOV_MAX = 1024
_SSIZE_MAX = (1 << 63) - 1
_STRING_CHUNK = 4096
_SHORT_PATH = 256
_FS_ENCODING, _FS_ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class GuestMemory:
    """Access to the memory of one address space, with the guest's own protections. EFAULT where it has none."""

    def __init__(self, space: AddressSpace) -> None:
        self.space = space
        # The platform's own methods, without a frame between: they are the hottest calls of the kernel.
        self.read: Callable[[int, int], bytes] = space.read
        """``read(address, count)`` copies out all of ``count`` bytes."""
        self.read_some: Callable[[int, int], bytes] = space.read_some
        """``read_some(address, count)`` copies out what is readable from ``address`` on, perhaps nothing."""
        self.write: Callable[[int, bytes], None] = space.write
        """``write(address, data)`` copies in all of ``data``."""
        self.write_some: Callable[[int, bytes], int] = space.write_some
        """``write_some(address, data)`` copies in what is writable from ``address`` on and gives how much."""
        self.write_from_file: Callable[[int, int, int, int], int] = space.write_from_file
        """``write_from_file(address, count, descriptor, offset)`` reads a host file into memory and gives how much."""

    def read_u32(self, address: int) -> int:
        """Reads an unsigned 32-bit number."""
        return int.from_bytes(self.read(address, 4), "little")

    def read_i32(self, address: int) -> int:
        """Reads a signed 32-bit number."""
        return int.from_bytes(self.read(address, 4), "little", signed=True)

    def read_u64(self, address: int) -> int:
        """Reads an unsigned 64-bit number."""
        return int.from_bytes(self.read(address, 8), "little")

    def read_i64(self, address: int) -> int:
        """Reads a signed 64-bit number."""
        return int.from_bytes(self.read(address, 8), "little", signed=True)

    def write_u32(self, address: int, value: int) -> None:
        """Writes the low 32 bits of a number."""
        self.write(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def write_i32(self, address: int, value: int) -> None:
        """Writes a 32-bit number, signed or not."""
        self.write(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        """Writes the low 64 bits of a number."""
        self.write(address, (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little"))

    def write_i64(self, address: int, value: int) -> None:
        """Writes a 64-bit number, signed or not."""
        self.write(address, (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little"))

    def read_struct(self, address: int, layout: struct.Struct) -> tuple[Any, ...]:
        """Reads the fields of a structure."""
        return layout.unpack(self.read(address, layout.size))

    def write_struct(self, address: int, layout: struct.Struct, *values: Any) -> None:
        """Writes the fields of a structure."""
        self.write(address, layout.pack(*values))

    def read_string(self, address: int, limit: int = PATH_MAX) -> bytes:
        """Reads up to a NUL, which it leaves out; ENAMETOOLONG when ``limit`` bytes hold none."""
        parts = []
        while limit > 0:
            # Never beyond the page at hand: the next one may not be there, nor be needed.
            count = min(limit, _STRING_CHUNK - address % PAGE_SIZE)
            chunk = self.read_some(address, count)
            end = chunk.find(0)
            if end >= 0:
                parts.append(chunk[:end])
                return b"".join(parts)
            if len(chunk) < count:
                raise EFAULT(f"string at {address:#x} runs into unreadable memory")
            parts.append(chunk)
            address += count
            limit -= count
        raise ENAMETOOLONG("string without an end")

    def read_path(self, address: int) -> str:
        """Reads a path; ENAMETOOLONG at PATH_MAX."""
        # Nearly all paths are short: then one small read does, and none of it lies in a page too far.
        chunk = self.read_some(address, min(_SHORT_PATH, PAGE_SIZE - address % PAGE_SIZE))
        end = chunk.find(0)
        path = chunk[:end] if end >= 0 else self.read_string(address, PATH_MAX)
        return path.decode(_FS_ENCODING, _FS_ERRORS)

    def read_iovec(self, address: int, count: int) -> list[tuple[int, int]]:
        """Reads ``struct iovec`` pairs of address and length; EINVAL if they are too many or too long."""
        if not 0 <= count <= IOV_MAX:
            raise EINVAL(f"{count} vectors")
        if not count:
            return []
        vectors = list(struct.iter_unpack("<QQ", self.read(address, 16 * count)))
        if any(length > _SSIZE_MAX for _, length in vectors) or sum(length for _, length in vectors) > _SSIZE_MAX:
            raise EINVAL("vectors longer than ssize_t")
        return vectors

    def read_pointer_array(self, address: int, limit: int) -> list[int]:
        """Reads pointers up to a null one, at most ``limit`` of them and one more if there are more."""
        pointers: list[int] = []
        while len(pointers) <= limit:
            count = min(PAGE_SIZE - address % PAGE_SIZE, PAGE_SIZE) // 8 or 1
            chunk = self.read_some(address, 8 * count)
            values = struct.unpack_from(f"<{len(chunk) // 8}Q", chunk)
            if 0 in values:
                return pointers + list(values[: values.index(0)])
            if len(values) < count:
                raise EFAULT(f"pointers at {address:#x} run into unreadable memory")
            pointers += values
            address += 8 * count
        return pointers[: limit + 1]
