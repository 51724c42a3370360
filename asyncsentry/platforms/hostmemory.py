"""Guest memory that a host process holds, read and written with process_vm_readv(2) and process_vm_writev(2).

Those calls honour the guest's own page protections, so EFAULT comes out as on Linux. Addresses come from
guests and may be any 64-bit number.
"""

from __future__ import annotations

from typing import Any

from asyncsentry import errnos
from asyncsentry.platforms._native import ffi, lib
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX

_BUFFER_SIZE: int = lib.COPY_BUFFER_SIZE


def _pointer(data: bytes) -> Any:
    """Gives what C gets; bytes go as they are, which is quicker, and other buffers through a view."""
    return data if data.__class__ is bytes else ffi.from_buffer(data)


def copy_buffer() -> Any:
    """Makes the buffer that copies go through; one serves all address spaces of a platform."""
    return ffi.new("char[]", _BUFFER_SIZE)


class HostMemory:
    """The memory of one host process."""

    def __init__(self, buffer: Any, vdso: tuple[int, int]) -> None:
        self._buffer = buffer
        self._bytes = ffi.buffer(buffer)
        self._vdso_start, size = vdso
        self._vdso_end = self._vdso_start + size
        self.host_pid = 0
        """The host's process id (thread group)."""
        self.memory_tid = 0
        """A live host thread of it: the leader may exit first, and a zombie leader has no memory. 0: none is left."""

    def _check(self, address: int, count: int) -> None:
        if address + count > GUEST_ADDRESS_MAX and not self._vdso_start <= address <= self._vdso_end - count:
            raise errnos.EFAULT(f"{count} bytes at {address:#x} are not the guest's")

    def read(self, address: int, count: int) -> bytes:
        """Copies guest memory out; EFAULT unless all of it is readable."""
        if count == 0:
            return b""
        if address + count > GUEST_ADDRESS_MAX:
            self._check(address, count)
        if count <= _BUFFER_SIZE:
            if lib.vm_read(self._buffer, self.memory_tid, address, count) != count:
                raise errnos.EFAULT(f"cannot read {count} bytes at {address:#x}")
            data: bytes = self._bytes[:count]
            return data
        data = self.read_some(address, count)
        if len(data) != count:
            raise errnos.EFAULT(f"cannot read {count} bytes at {address:#x}")
        return data

    def read_some(self, address: int, count: int) -> bytes:
        """Copies out what is readable from ``address`` on."""
        if count <= _BUFFER_SIZE and address + count <= GUEST_ADDRESS_MAX:
            done: int = lib.vm_read(self._buffer, self.memory_tid, address, count) if count else 0
            data: bytes = self._bytes[:done] if done > 0 else b""
            return data
        return self._read_pieces(address, count)

    def _read_pieces(self, address: int, count: int) -> bytes:
        count = min(count, GUEST_ADDRESS_MAX - address) if address < GUEST_ADDRESS_MAX else count
        try:
            self._check(address, count)
        except errnos.EFAULT:
            return b""
        pieces = []
        while count > 0:
            got = lib.vm_read(self._buffer, self.memory_tid, address, min(count, _BUFFER_SIZE))
            if got <= 0:
                break
            pieces.append(self._bytes[:got])
            if got < min(count, _BUFFER_SIZE):
                break
            address += got
            count -= got
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, address: int, data: bytes) -> None:
        """Copies into guest memory; EFAULT unless all of it is writable."""
        count = len(data)
        if address + count > GUEST_ADDRESS_MAX:
            raise errnos.EFAULT(f"{count} bytes at {address:#x} are not the guest's")
        if count and lib.vm_write(self.memory_tid, address, _pointer(data), count) != count:
            raise errnos.EFAULT(f"cannot write {count} bytes at {address:#x}")

    def write_some(self, address: int, data: bytes) -> int:
        """Copies in what is writable from ``address`` on and gives how much."""
        if address >= GUEST_ADDRESS_MAX or not data:
            return 0
        count = min(len(data), GUEST_ADDRESS_MAX - address)
        done: int = lib.vm_write(self.memory_tid, address, _pointer(data), count)
        return done if done > 0 else 0

    def peek(self, address: int, count: int) -> bytes:
        """Reads memory of ours in the guest process, beyond guest addresses."""
        got = lib.vm_read(self._buffer, self.memory_tid, address, count)
        return bytes(ffi.buffer(self._buffer, max(got, 0)))

    def poke(self, address: int, data: bytes) -> None:
        """Writes memory of ours in the guest process, beyond guest addresses."""
        lib.vm_write(self.memory_tid, address, ffi.from_buffer(data), len(data))

    def write_from_file(self, address: int, count: int, descriptor: int, offset: int) -> int:
        """Reads at most 1 MiB of a host file straight into guest memory and gives how much.

        One C call for pread(2) and the copy: the hot path of reading files. EFAULT if nothing could be written;
        host errors as their errno.
        """
        if address + count > GUEST_ADDRESS_MAX:
            count = GUEST_ADDRESS_MAX - address
            if count <= 0:
                raise errnos.EFAULT(f"{address:#x} is not the guest's")
        done: int = lib.vm_write_from_file(self._buffer, self.memory_tid, address, count, descriptor, offset)
        if done < 0:
            raise errnos.BY_NUMBER.get(-done, errnos.EIO)(f"reading into {address:#x}")
        return done
