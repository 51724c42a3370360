"""File locks: flock(2), and the record locks of fcntl(2). Who holds what is kept in ``fs/locks.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncsentry.abi import fcntl_h as abi
from asyncsentry.errnos import EBADF, EINVAL, EOVERFLOW
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.file import SEEK_CUR, SEEK_END, SEEK_SET
from asyncsentry.fs.locks import OFFSET_MAX, InodeLocks, RangeLock, lock_range, lock_whole, locks_of
from asyncsentry.fs.path import location_of
from asyncsentry.fs.vfs import inode_at
from asyncsentry.syscalls.args import Fd, UInt
from asyncsentry.syscalls.attributes import open_file
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.thread import Thread

if TYPE_CHECKING:
    from asyncsentry.fs.file import File


@syscall(73, errnos="EBADF EINTR EINVAL ENOLCK EAGAIN")
async def flock(thread: Thread, fd: Fd, operation: UInt) -> int:
    """flock(2)."""
    kind = operation & ~abi.LOCK_NB
    if kind not in (abi.LOCK_SH, abi.LOCK_EX, abi.LOCK_UN):
        raise EINVAL("no such operation")
    file = open_file(thread, fd)
    locks = _locks(file)
    if kind == abi.LOCK_UN:
        locks.unlock_whole(file)
        return 0
    file.references += 1
    try:
        await lock_whole(thread, locks, file, kind, not operation & abi.LOCK_NB)
    finally:
        await drop(file)
    return 0


# Record locks, by the names of their fcntl(2) commands ---------------------------------------------


def _read_flock(thread: Thread, file: File, address: int) -> tuple[int, int, int, int]:
    """Copies and checks ``struct flock``: gives type, first and last byte, and the pid field."""
    kind, whence, start, length, pid = thread.memory.read_struct(address, abi.FLOCK)
    if kind not in (abi.F_RDLCK, abi.F_WRLCK, abi.F_UNLCK):
        raise EINVAL("no such type of lock")
    if whence == SEEK_CUR:
        start += file.position
    elif whence == SEEK_END:
        start += inode_at(location_of(file)).stat().size
    elif whence != SEEK_SET:
        raise EINVAL("no such whence")
    if start > OFFSET_MAX or start + max(length, 0) - 1 > OFFSET_MAX:
        raise EOVERFLOW("past the largest offset")
    end = start + length - 1 if length > 0 else OFFSET_MAX if length == 0 else start - 1
    start = start + length if length < 0 else start
    if start < 0:
        raise EINVAL("before the start")
    return kind, start, end, pid


def _locks(file: File) -> InodeLocks:
    return locks_of(inode_at(location_of(file)))


def get_lock(thread: Thread, fd: int, file: File, argument: int) -> int:
    """Does F_GETLK."""
    return _test_lock(thread, file, argument, thread.fds)


def get_ofd_lock(thread: Thread, fd: int, file: File, argument: int) -> int:
    """Does F_OFD_GETLK."""
    return _test_lock(thread, file, argument, file)


def _test_lock(thread: Thread, file: File, address: int, owner: Any) -> int:
    kind, start, end, pid = _read_flock(thread, file, address)
    if kind == abi.F_UNLCK or (owner is file and pid):
        raise EINVAL("nothing to test for")
    lock = _locks(file).conflict(owner, kind, start, end)
    if lock is None:
        thread.memory.write(address, abi.F_UNLCK.to_bytes(2, "little"))
        return 0
    length = 0 if lock.end == OFFSET_MAX else lock.end - lock.start + 1
    thread.memory.write_struct(address, abi.FLOCK, lock.kind, SEEK_SET, lock.start, length, lock.pid)
    return 0


async def set_lock(thread: Thread, fd: int, file: File, argument: int) -> int:
    """Does F_SETLK."""
    return await _lock(thread, fd, file, argument, thread.fds, wait=False)


async def set_lock_wait(thread: Thread, fd: int, file: File, argument: int) -> int:
    """Does F_SETLKW."""
    return await _lock(thread, fd, file, argument, thread.fds, wait=True)


async def set_ofd_lock(thread: Thread, fd: int, file: File, argument: int) -> int:
    """Does F_OFD_SETLK."""
    return await _lock(thread, fd, file, argument, file, wait=False)


async def set_ofd_lock_wait(thread: Thread, fd: int, file: File, argument: int) -> int:
    """Does F_OFD_SETLKW."""
    return await _lock(thread, fd, file, argument, file, wait=True)


async def _lock(thread: Thread, fd: int, file: File, address: int, owner: Any, wait: bool) -> int:
    kind, start, end, pid = _read_flock(thread, file, address)
    if (kind == abi.F_RDLCK and not file.readable) or (kind == abi.F_WRLCK and not file.writable):
        raise EBADF("not open for that")
    if owner is file and pid:
        raise EINVAL("the pid of an OFD lock is 0")
    locks = _locks(file)
    wanted = RangeLock(owner, -1 if owner is file else thread.process.pid, kind, start, end)
    file.references += 1
    try:
        await lock_range(thread, locks, wanted, wait)
        if kind != abi.F_UNLCK and owner is not file and thread.fds.files.get(fd) is not file:
            # Closed by another thread while we waited: its close found no lock to drop, so drop it now.
            locks.release_owner(owner)
            raise EBADF(f"fd {fd} was closed")
    finally:
        await drop(file)
    return 0
