"""File locks: flock(2), and byte ranges owned by a process (POSIX) or by an open file description (OFD).

All locks of a file hang from its inode. A POSIX lock belongs to a descriptor table, as on Linux, and goes when
any descriptor of the file is closed there; flock and OFD locks belong to a file and go with it. Only POSIX locks
look for deadlock. See fcntl(2), flock(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import F_UNLCK, F_WRLCK, LOCK_EX
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.waiter import POLLIN, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.fs.inode import Inode
    from asyncsentry.waiter import BlockContext

OFFSET_MAX = (1 << 63) - 1
RANGES_MAX = 1 << 16
"""Ranges one file may have locked; more is ENOLCK."""

class RangeLock:
    """One locked range; ``end`` is its last byte."""

    __slots__ = ("end", "kind", "owner", "pid", "start")

    def __init__(self, owner: FdTable | File, pid: int, kind: int, start: int, end: int) -> None:
        self.owner = owner
        self.pid = pid
        """What F_GETLK reports: the locker's process, -1 for an OFD lock."""
        self.kind = kind
        self.start = start
        self.end = end


class InodeLocks:
    """All locks on one file."""

    def __init__(self) -> None:
        self.ranges: list[RangeLock] = []
        self.flocks: dict[File, int] = {}
        self.queue = WaitQueue()
        """Notified with POLLIN when a lock goes or weakens."""

    def conflict(self, owner: FdTable | File, kind: int, start: int, end: int) -> RangeLock | None:
        """Finds a lock of somebody else that stands in the way of a lock of ``kind``."""
        for lock in self.ranges:
            if (
                lock.owner is not owner
                and lock.start <= end
                and lock.end >= start
                and (kind == F_WRLCK or lock.kind == F_WRLCK)
            ):
                return lock
        return None

    def set_range(self, owner: FdTable | File, pid: int, kind: int, start: int, end: int) -> None:
        """Locks or (F_UNLCK) unlocks a range nobody else stands in the way of, splitting and merging its own."""
        kept: list[RangeLock] = []
        for lock in self.ranges:
            if lock.owner is not owner or lock.end < start - 1 or lock.start > end + 1:
                kept.append(lock)
            elif lock.kind == kind:
                start, end = min(start, lock.start), max(end, lock.end)
            else:
                if lock.start < start:
                    kept.append(RangeLock(owner, lock.pid, lock.kind, lock.start, min(lock.end, start - 1)))
                if lock.end > end:
                    kept.append(RangeLock(owner, lock.pid, lock.kind, max(lock.start, end + 1), lock.end))
        if kind != F_UNLCK:
            kept.append(RangeLock(owner, pid, kind, start, end))
        if len(kept) > max(RANGES_MAX, len(self.ranges)):
            raise errnos.ENOLCK("too many locks on one file")
        self.ranges = kept
        self.queue.notify(POLLIN)

    def release_owner(self, owner: FdTable | File) -> None:
        """Drops every range of an owner that closes the file or goes away."""
        if any(lock.owner is owner for lock in self.ranges):
            self.ranges = [lock for lock in self.ranges if lock.owner is not owner]
            self.queue.notify(POLLIN)

    def release_file(self, file: File) -> None:
        """Drops the flock and the OFD locks of a file that is closed for good."""
        self.release_owner(file)
        self.unlock_whole(file)

    def try_lock_whole(self, file: File, kind: int) -> None:
        """Takes or converts a flock (LOCK_SH, LOCK_EX); WouldBlock (and an old one is lost) if others have it."""
        if self.flocks.get(file) == kind:
            return
        self.unlock_whole(file)
        if any(kind == LOCK_EX or other == LOCK_EX for other in self.flocks.values()):
            raise errnos.WouldBlock
        self.flocks[file] = kind

    def unlock_whole(self, file: File) -> None:
        """Drops a file's flock, if it has one."""
        if self.flocks.pop(file, None) is not None:
            self.queue.notify(POLLIN)


def locks_of(inode: Inode) -> InodeLocks:
    """Gives the locks of a file, making the place for them at first use."""
    if inode.locks is None:
        inode.locks = InodeLocks()
    return inode.locks


async def lock_range(context: BlockContext, locks: InodeLocks, wanted: RangeLock, wait: bool) -> None:
    """Takes a range lock; EAGAIN or, with ``wait``, a wait and perhaps EDEADLK if others stand in the way."""
    owner, kind = wanted.owner, wanted.kind
    while True:
        blocker = None if kind == F_UNLCK else locks.conflict(owner, kind, wanted.start, wanted.end)
        if blocker is None:
            locks.set_range(owner, wanted.pid, kind, wanted.start, wanted.end)
            return
        if not wait:
            raise errnos.EAGAIN("the range is locked")
        await _wait_for(context, locks, owner, blocker.owner)


async def lock_whole(context: BlockContext, locks: InodeLocks, file: File, kind: int, wait: bool) -> None:
    """Takes a flock, waiting for it or raising EAGAIN (EWOULDBLOCK)."""
    while True:
        try:
            locks.try_lock_whole(file, kind)
            return
        except errnos.WouldBlock:
            if not wait:
                raise errnos.EAGAIN("the file is locked") from None
        await context.block(locks.queue, POLLIN)


async def _wait_for(context: BlockContext, locks: InodeLocks, owner: FdTable | File, holder: FdTable | File) -> None:
    if not isinstance(owner, FdTable):
        await context.block(locks.queue, POLLIN)
        return
    if _waits_for(holder, owner):
        raise errnos.EDEADLK("the holder waits for us")
    owner.lock_waits.append(holder)
    try:
        await context.block(locks.queue, POLLIN)
    finally:
        owner.lock_waits.remove(holder)


def _waits_for(start: FdTable | File, target: FdTable) -> bool:
    """Whether ``start`` waits, perhaps through others, for a lock of ``target``."""
    seen: list[FdTable | File] = []
    pending = [start]
    while pending:
        owner = pending.pop()
        if owner is target:
            return True
        if isinstance(owner, FdTable) and owner not in seen:
            seen.append(owner)
            pending += owner.lock_waits
    return False
