"""Opening and closing: open(2), openat(2), openat2(2), creat(2), close(2), close_range(2), dup(2) and kin."""

from __future__ import annotations

from collections.abc import Awaitable

from asyncsentry.abi.fcntl_h import (
    AT_FDCWD,
    O_CLOEXEC,
    O_CREAT,
    O_PATH,
    O_PATH_FLAGS,
    O_TMPFILE_BIT,
    O_TRUNC,
    O_VALID,
    O_WRONLY,
    OPEN_HOW,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
)
from asyncsentry.errnos import E2BIG, EAGAIN, EBADF, EINVAL
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.file import File
from asyncsentry.fs.vfs import open_path
from asyncsentry.syscalls.args import Fd, Flags, Mode, PathPointer, Pointer, Size, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.thread import Thread

OPEN_ERRNOS = (
    "EACCES EBADF EBUSY EEXIST EFAULT EINTR EINVAL EISDIR ELOOP EMFILE ENAMETOOLONG ENODEV ENOENT ENOSPC ENOTDIR "
    "ENXIO EOPNOTSUPP EPERM EROFS ETXTBSY"
)
_RESOLVE_ALL = 0x3F
CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4


async def _open(thread: Thread, dirfd: int, path: str, flags: int, mode: int, resolve: int = 0) -> int:
    thread.fds.lowest_free()  # EMFILE comes before anything the path may say
    file = await open_path(thread, dirfd, path, flags, mode, resolve)
    try:
        return thread.fds.install(file, bool(flags & O_CLOEXEC))
    except BaseException:
        file.references += 1
        await drop(file)
        raise


@syscall(2, errnos=OPEN_ERRNOS)
def open_(thread: Thread, path: PathPointer, flags: Flags, mode: Mode) -> Awaitable[int]:
    """open(2): flags are checked first, then the path copied, a descriptor found, the path walked."""
    return _open(thread, AT_FDCWD, thread.memory.read_path(path), flags, mode)


@syscall(257, errnos=OPEN_ERRNOS)
def openat(thread: Thread, dirfd: Fd, path: PathPointer, flags: Flags, mode: Mode) -> Awaitable[int]:
    """openat(2)."""
    return _open(thread, dirfd, thread.memory.read_path(path), flags, mode)


@syscall(85, errnos=OPEN_ERRNOS)
async def creat(thread: Thread, path: PathPointer, mode: Mode) -> int:
    """creat(2)."""
    return await _open(thread, AT_FDCWD, thread.memory.read_path(path), O_CREAT | O_WRONLY | O_TRUNC, mode)


@syscall(437, errnos=OPEN_ERRNOS + " E2BIG EAGAIN EXDEV")
async def openat2(thread: Thread, dirfd: Fd, path: PathPointer, how: Pointer, size: Size) -> int:
    """openat2(2): size, then the structure, then its flags; unknown ones are refused, unlike open(2)'s."""
    flags, mode, resolve = read_open_how(thread, how, size)
    return await _open(thread, dirfd, thread.memory.read_path(path), flags, mode, resolve)


def read_open_how(thread: Thread, how: int, size: int) -> tuple[int, int, int]:
    """Copies and checks ``struct open_how``: gives flags, mode and resolve."""
    if size < OPEN_HOW.size:
        raise EINVAL("struct open_how is larger than that")
    if size > 4096:
        raise E2BIG("struct open_how is at most a page")
    copied = thread.memory.read(how, size)
    if any(copied[OPEN_HOW.size :]):
        raise E2BIG("struct open_how has unknown fields")
    flags, mode, resolve = OPEN_HOW.unpack_from(copied)
    if flags & ~O_VALID or resolve & ~_RESOLVE_ALL:
        raise EINVAL("unknown flags")
    if resolve & RESOLVE_BENEATH and resolve & RESOLVE_IN_ROOT:
        raise EINVAL("RESOLVE_BENEATH and RESOLVE_IN_ROOT exclude each other")
    if mode and (not flags & (O_CREAT | O_TMPFILE_BIT) or mode & ~0o7777):
        raise EINVAL("a mode is for new files, and has twelve bits")
    if flags & O_PATH and flags & ~O_PATH_FLAGS:
        raise EINVAL("O_PATH goes with few flags")
    if resolve & RESOLVE_CACHED and flags & (O_TRUNC | O_CREAT | O_TMPFILE_BIT):
        raise EAGAIN("RESOLVE_CACHED makes nothing new")
    return flags, mode, resolve


@syscall(3, errnos="EBADF")
def close(thread: Thread, fd: Fd) -> int | Awaitable[int]:
    """close(2)."""
    file = thread.fds.take(fd)
    if file.references > 1:
        file.references -= 1
        return 0
    return _close_last(file)


async def _close_last(file: File) -> int:
    await drop(file)
    return 0


@syscall(436, errnos="EINVAL EMFILE ENOMEM")
async def close_range(thread: Thread, first: UInt, last: UInt, flags: Flags) -> int:
    """close_range(2)."""
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
        raise EINVAL("unknown flags, or no range")
    if flags & CLOSE_RANGE_UNSHARE and thread.fds.users > 1:
        table = thread.fds.copy()
        thread.fds.users -= 1
        thread.fds = table
    table = thread.fds
    in_range = [fd for fd in table if first <= fd <= last]
    if flags & CLOSE_RANGE_CLOEXEC:
        table.close_on_exec.update(in_range)
        return 0
    for fd in in_range:
        if fd in table.files:
            await table.close(fd)
    return 0


@syscall(32, errnos="EBADF EMFILE")
def dup(thread: Thread, fd: Fd) -> int:
    """dup(2)."""
    return thread.fds.install(thread.fds.get(fd))


@syscall(33, errnos="EBADF")
async def dup2(thread: Thread, old: Fd, new: Fd) -> int:
    """dup2(2): the old descriptor is checked before the new one; the same number twice does nothing."""
    if old == new:
        thread.fds.get(old)
        return new
    return await _duplicate(thread, old, new, close_on_exec=False)


@syscall(292, errnos="EBADF EINVAL")
async def dup3(thread: Thread, old: Fd, new: Fd, flags: Flags) -> int:
    """dup3(2): unlike dup2(2) it refuses the same number twice."""
    if flags & ~O_CLOEXEC:
        raise EINVAL("only O_CLOEXEC is known")
    if old == new:
        raise EINVAL("old and new are the same")
    return await _duplicate(thread, old, new, close_on_exec=bool(flags))


async def _duplicate(thread: Thread, old: int, new: int, close_on_exec: bool) -> int:
    table = thread.fds
    if not 0 <= new < table.limit:
        raise EBADF(f"fd {new} is beyond the limit")
    file = table.get(old)
    replaced = table.take(new) if new in table.files else None
    table.put(new, file, close_on_exec)
    if replaced is not None:
        await drop(replaced)
    return new


