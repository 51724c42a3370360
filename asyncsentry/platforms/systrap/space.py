"""Guest memory on systrap: a host process, read and written with process_vm_readv(2) and process_vm_writev(2).

Those calls honour the guest's own page protections, so EFAULT comes out as on Linux. Addresses come from
guests and may be any 64-bit number.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncsentry import errnos
from asyncsentry.platforms._native import ffi, lib
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX
from asyncsentry.platforms.systrap.slots import SLOTS_PER_CHUNK, Chunk

if TYPE_CHECKING:
    from asyncsentry.platforms.systrap.context import SystrapContext

_BUFFER_SIZE = 1 << 20


class SystrapSpace:
    """One guest address space; the memory of one host process."""

    def __init__(self, hub: Any, chunk: Chunk, vdso: tuple[int, int]) -> None:
        self._hub = hub
        self._buffer = lib.hub_buffer(hub)
        self._vdso_start, size = vdso
        self._vdso_end = self._vdso_start + size
        self.chunks = [chunk]
        self.contexts: set[SystrapContext] = set()
        """Threads that live in it."""
        self.host_pid = 0
        """The host's process id (thread group)."""
        self.memory_tid = 0
        """A live host thread of it: the leader may exit first, and a zombie leader has no memory."""
        self.pidfd = -1
        self.is_dead = False
        self.died = asyncio.get_running_loop().create_future()
        self.free_slots = list(range(chunk.first + SLOTS_PER_CHUNK - 1, chunk.first, -1))
        self.leaving: list[tuple[int, int]] = []
        """Slots of threads told to exit, with their tids: free once the host says the thread is gone."""

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
            if lib.vm_read(self._hub, self.memory_tid, address, count) != count:
                raise errnos.EFAULT(f"cannot read {count} bytes at {address:#x}")
            data: bytes = ffi.buffer(self._buffer, count)[:]
            return data
        data = self.read_some(address, count)
        if len(data) != count:
            raise errnos.EFAULT(f"cannot read {count} bytes at {address:#x}")
        return data

    def read_some(self, address: int, count: int) -> bytes:
        """Copies out what is readable from ``address`` on."""
        count = min(count, GUEST_ADDRESS_MAX - address) if address < GUEST_ADDRESS_MAX else count
        try:
            self._check(address, count)
        except errnos.EFAULT:
            return b""
        pieces = []
        while count > 0:
            got = lib.vm_read(self._hub, self.memory_tid, address, min(count, _BUFFER_SIZE))
            if got <= 0:
                break
            pieces.append(ffi.buffer(self._buffer, got)[:])
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
        if count and lib.vm_write(self.memory_tid, address, ffi.from_buffer(data), count) != count:
            raise errnos.EFAULT(f"cannot write {count} bytes at {address:#x}")

    def write_some(self, address: int, data: bytes) -> int:
        """Copies in what is writable from ``address`` on and gives how much."""
        if address >= GUEST_ADDRESS_MAX or not data:
            return 0
        count = min(len(data), GUEST_ADDRESS_MAX - address)
        done: int = lib.vm_write(self.memory_tid, address, ffi.from_buffer(data), count)
        return max(done, 0)

    def write_from_file(self, address: int, count: int, descriptor: int, offset: int) -> int:
        """Reads at most 1 MiB of a host file straight into guest memory and gives how much.

        One C call for pread(2) and the copy: the hot path of reading files. EFAULT if nothing could be written;
        host errors as their errno.
        """
        if address + count > GUEST_ADDRESS_MAX:
            raise errnos.EFAULT(f"{count} bytes at {address:#x} are not the guest's")
        done: int = lib.vm_write_from_file(self._hub, self.memory_tid, address, count, descriptor, offset)
        if done < 0:
            raise errnos.BY_NUMBER.get(-done, errnos.EIO)(f"reading into {address:#x}")
        return done
