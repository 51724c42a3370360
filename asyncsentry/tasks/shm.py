"""System V shared memory: segments that processes attach by number, shmget(2), shmop(2), shmctl(2).

A segment's pages are a host memfd of ours, so that unrelated processes map the same ones. An *attachment* is
what an area of guest memory holds of a segment; its references are the areas, and with the last area of the
last attachment a segment marked for destruction goes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncsentry.abi import ipc_h as abi
from asyncsentry.clock import CLOCK_REALTIME, NS_PER_SECOND, Clock
from asyncsentry.errnos import EIDRM, EINVAL, ENOMEM, from_host
from asyncsentry.fs.inode import Stat
from asyncsentry.memory.layout import page_up
from asyncsentry.tasks.ipc import IpcObject, IpcTable

if TYPE_CHECKING:
    from asyncsentry.sysctl import Sysctls
    from asyncsentry.tasks.credentials import Credentials

_DEVICE = 1
_SIZE_MAX = 1 << 46


class ShmSegment(IpcObject):
    """One segment."""

    def __init__(self, table: ShmTable, key: int, size: int, mode: int, creator: Credentials, pid: int) -> None:
        super().__init__(key, mode, creator)
        self.table = table
        self.size = size
        self.creator_pid = pid
        self.last_pid = 0
        self.attach_time = self.detach_time = 0
        self.change_time = table.now()
        self.attachments: set[ShmAttachment] = set()
        try:
            self._descriptor = os.memfd_create("sysv-shm", os.MFD_CLOEXEC)
            os.ftruncate(self._descriptor, page_up(size))
        except OSError as error:
            raise from_host(error) from error

    @property
    def descriptor(self) -> int:
        """The host memfd with its pages."""
        if self._descriptor < 0:
            raise EIDRM("the segment is gone")
        return self._descriptor

    @property
    def resident_bytes(self) -> int:
        """Bytes of it that exist, as the host says."""
        return os.fstat(self._descriptor).st_blocks * 512 if self._descriptor >= 0 else 0

    @property
    def attach_count(self) -> int:
        """Areas that map it, ``shm_nattch``."""
        return sum(attachment.references for attachment in self.attachments)

    def stat(self) -> Stat:
        """Gives what /proc/PID/maps shows: the segment's number in the place of an inode's."""
        now_ns = self.change_time * NS_PER_SECOND
        return Stat(_DEVICE, max(self.id, 0), 0o100000 | self.mode, 0, self.uid, self.gid, 0, self.size,
                    page_up(self.size) // 512, 4096, now_ns, now_ns, now_ns, now_ns)  # fmt: skip

    def pack(self) -> bytes:
        """Lays out ``struct shmid64_ds``."""
        return self.pack_permissions() + abi.SHMID_DS.pack(
            self.size, self.attach_time, self.detach_time, self.change_time, self.creator_pid, self.last_pid,
            self.attach_count, 0, 0,
        )  # fmt: skip

    def detached(self, attachment: ShmAttachment) -> None:
        """Takes note that an attachment has no area left."""
        self.attachments.discard(attachment)
        self.detach_time = self.table.now()
        self.destroy_if_unused()

    def destroy_if_unused(self) -> None:
        """Gives the pages back if it is marked for destruction and nobody has it attached."""
        if self.mode & abi.SHM_DEST and not self.attachments and self._descriptor >= 0:
            self.table.remove(self)
            os.close(self._descriptor)
            self._descriptor = -1


class ShmAttachment:
    """One attachment of a segment; the file behind the areas that map it."""

    maps_as_anonymous = False
    location = None
    readable = True

    def __init__(self, segment: ShmSegment, writable: bool) -> None:
        self.segment = segment
        self.inode = segment
        self.writable = writable
        self.references = 0
        segment.attachments.add(self)

    def describe(self) -> str:
        """Gives the name Linux shows."""
        return f"/SYSV{self.segment.key & 0xFFFFFFFF:08x} (deleted)"

    def host_descriptor(self, writable: bool) -> int:
        """Gives the segment's pages."""
        return self.segment.descriptor

    async def finish(self) -> None:
        """Detaches: no area is left."""
        self.segment.detached(self)


class ShmTable(IpcTable[ShmSegment]):
    """All segments of a sandbox."""

    def __init__(self, clock: Clock, sysctls: Sysctls) -> None:
        super().__init__(abi.SHMMNI)
        self._clock = clock
        self.sysctls = sysctls

    @property
    def limit(self) -> int:
        """How many there may be, kernel.shmmni."""
        return self.sysctls.integer("kernel.shmmni")

    def now(self) -> int:
        """Gives the time in seconds, as segments keep it."""
        return self._clock.now_ns(CLOCK_REALTIME) // NS_PER_SECOND

    def open(self, key: int, size: int, flags: int, credentials: Credentials, pid: int) -> ShmSegment:
        """Finds or makes a segment, shmget(2)."""
        segment = self.find_key(key, flags)
        if segment is not None:
            if size > segment.size:
                raise EINVAL("the segment is smaller")
            wanted = (flags >> 6 | flags >> 3 | flags) & 7
            segment.check_access(credentials, wanted)
            return segment
        if not 1 <= size <= self.sysctls.integer("kernel.shmmax"):
            raise EINVAL("a size that cannot be")
        if flags & abi.SHM_HUGETLB or size > _SIZE_MAX:
            raise ENOMEM("there are no pages for it")
        self.check_room()
        segment = ShmSegment(self, key, size, flags, credentials, pid)
        self.add(segment)
        return segment

    def mark_for_destruction(self, segment: ShmSegment) -> None:
        """Removes a segment now or with its last detachment, IPC_RMID."""
        segment.mode |= abi.SHM_DEST
        self.forget_key(segment)
        segment.destroy_if_unused()

    def close(self) -> None:
        """Gives all pages back at the end of the sandbox."""
        for segment in tuple(self):
            segment.attachments.clear()
            self.mark_for_destruction(segment)
