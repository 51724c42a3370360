"""Attributes: chmod(2), chown(2), utimensat(2), truncate(2), each with its kin, and umask(2)."""

from __future__ import annotations

from asyncsentry.abi.fcntl_h import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_PATH
from asyncsentry.abi.resource_h import RLIM_INFINITY, RLIMIT_FSIZE
from asyncsentry.abi.stat_h import UTIME_NOW, UTIME_OMIT
from asyncsentry.clock import CLOCK_REALTIME, NS_PER_SECOND
from asyncsentry.errnos import EBADF, EFBIG, EINVAL
from asyncsentry.fs import attributes
from asyncsentry.fs.dentry import Location
from asyncsentry.fs.file import File
from asyncsentry.fs.path import location_of, resolve
from asyncsentry.syscalls.args import Fd, Flags, Int, Long, Mode, PathPointer, Pointer, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.status import WALK_ERRNOS, read_path_or_empty
from asyncsentry.syscalls.transfer import SIGXFSZ, raise_signal
from asyncsentry.tasks.thread import Thread

ERRNOS = WALK_ERRNOS + " EBADF EINVAL EIO EPERM EROFS"
_UNCHANGED = 0xFFFFFFFF


def open_file(thread: Thread, fd: int) -> File:
    """Finds a descriptor that is more than a place: EBADF for O_PATH ones."""
    file = thread.fds.files.get(fd)
    if file is None or file.flags & O_PATH:
        raise EBADF(f"fd {fd} is not open")
    return file


async def walk_with_flags(thread: Thread, dirfd: int, path: int, flags: int) -> Location:
    """Walks to what a call with AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH means; EINVAL for other flags."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise EINVAL("unknown flags")
    text = read_path_or_empty(thread, path, flags)
    return await resolve(thread, dirfd, text, not flags & AT_SYMLINK_NOFOLLOW, bool(flags & AT_EMPTY_PATH))


# chmod(2) ----------------------------------------------------------------------------------------


@syscall(90, errnos=ERRNOS)
async def chmod(thread: Thread, path: PathPointer, mode: Mode) -> int:
    """chmod(2)."""
    await attributes.chmod(thread, await walk_with_flags(thread, AT_FDCWD, path, 0), mode)
    return 0


@syscall(91, errnos=ERRNOS)
async def fchmod(thread: Thread, fd: Fd, mode: Mode) -> int:
    """fchmod(2)."""
    await attributes.chmod(thread, location_of(open_file(thread, fd)), mode)
    return 0


@syscall(268, errnos=ERRNOS)
async def fchmodat(thread: Thread, dirfd: Fd, path: PathPointer, mode: Mode) -> int:
    """fchmodat(2), whose system call has no flags."""
    await attributes.chmod(thread, await walk_with_flags(thread, dirfd, path, 0), mode)
    return 0


@syscall(452, errnos=ERRNOS + " EOPNOTSUPP")
async def fchmodat2(thread: Thread, dirfd: Fd, path: PathPointer, mode: Mode, flags: Flags) -> int:
    """fchmodat2(2): with flags."""
    await attributes.chmod(thread, await walk_with_flags(thread, dirfd, path, flags), mode)
    return 0


# chown(2) ----------------------------------------------------------------------------------------


async def _chown(thread: Thread, location: Location, uid: int, gid: int) -> int:
    await attributes.chown(
        thread, location, None if uid == _UNCHANGED else uid, None if gid == _UNCHANGED else gid)
    return 0


@syscall(92, errnos=ERRNOS)
async def chown(thread: Thread, path: PathPointer, uid: UInt, gid: UInt) -> int:
    """chown(2)."""
    return await _chown(thread, await walk_with_flags(thread, AT_FDCWD, path, 0), uid, gid)


@syscall(93, errnos=ERRNOS)
async def fchown(thread: Thread, fd: Fd, uid: UInt, gid: UInt) -> int:
    """fchown(2)."""
    return await _chown(thread, location_of(open_file(thread, fd)), uid, gid)


@syscall(94, errnos=ERRNOS)
async def lchown(thread: Thread, path: PathPointer, uid: UInt, gid: UInt) -> int:
    """lchown(2)."""
    return await _chown(thread, await walk_with_flags(thread, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), uid, gid)


@syscall(260, errnos=ERRNOS)
async def fchownat(thread: Thread, dirfd: Fd, path: PathPointer, uid: UInt, gid: UInt, flags: Flags) -> int:
    """fchownat(2)."""
    return await _chown(thread, await walk_with_flags(thread, dirfd, path, flags), uid, gid)


# utimensat(2) ------------------------------------------------------------------------------------


@syscall(280, errnos=ERRNOS + " ESRCH")
async def utimensat(thread: Thread, dirfd: Fd, path: PathPointer, times: Pointer, flags: Flags) -> int:
    """utimensat(2): a null path means the file ``dirfd`` itself, futimens(3)."""
    pairs = _read_times(thread, times, 1)
    for _, ns in pairs or ():
        if not 0 <= ns < NS_PER_SECOND and ns not in (UTIME_NOW, UTIME_OMIT):
            raise EINVAL("nanoseconds out of range")
    if pairs and all(ns == UTIME_OMIT for _, ns in pairs):
        return 0
    if not path and dirfd != AT_FDCWD and not flags & AT_EMPTY_PATH:
        if flags:
            raise EINVAL("no flags without a path")
        location = location_of(open_file(thread, dirfd))
    else:
        location = await walk_with_flags(thread, dirfd, path, flags)
    return await _set_times(thread, location, pairs)


@syscall(132, errnos=ERRNOS)
async def utime(thread: Thread, path: PathPointer, times: Pointer) -> int:
    """utime(2): whole seconds."""
    pairs = None
    if times:
        pairs = [(_signed(thread.memory.read_u64(times + offset)), 0) for offset in (0, 8)]
    return await _set_times(thread, await walk_with_flags(thread, AT_FDCWD, path, 0), pairs)


@syscall(235, errnos=ERRNOS)
async def utimes(thread: Thread, path: PathPointer, times: Pointer) -> int:
    """utimes(2): microseconds."""
    pairs = _read_microseconds(thread, times)
    return await _set_times(thread, await walk_with_flags(thread, AT_FDCWD, path, 0), pairs)


@syscall(261, errnos=ERRNOS)
async def futimesat(thread: Thread, dirfd: Fd, path: PathPointer, times: Pointer) -> int:
    """futimesat(2): as utimes(2), from a directory; a null path means ``dirfd`` itself."""
    pairs = _read_microseconds(thread, times)
    if not path and dirfd != AT_FDCWD:
        return await _set_times(thread, location_of(open_file(thread, dirfd)), pairs)
    return await _set_times(thread, await walk_with_flags(thread, dirfd, path, 0), pairs)


def _read_times(thread: Thread, times: int, unit: int) -> list[tuple[int, int]] | None:
    """Copies two (seconds, fraction) pairs, the fraction in units of ``unit`` nanoseconds; ``None`` for none."""
    if not times:
        return None
    words = [_signed(thread.memory.read_u64(times + offset)) for offset in range(0, 32, 8)]
    return [(words[0], words[1] * unit), (words[2], words[3] * unit)]


def _read_microseconds(thread: Thread, times: int) -> list[tuple[int, int]] | None:
    pairs = _read_times(thread, times, 1000)
    if pairs and any(not 0 <= ns < NS_PER_SECOND for _, ns in pairs):
        raise EINVAL("microseconds out of range")
    return pairs


async def _set_times(thread: Thread, location: Location, pairs: list[tuple[int, int]] | None) -> int:
    now_ns = thread.kernel.clock.now_ns(CLOCK_REALTIME)
    pairs = pairs or [(0, UTIME_NOW), (0, UTIME_NOW)]
    to_now = all(ns == UTIME_NOW for _, ns in pairs)
    atime_ns, mtime_ns = (
        now_ns if ns == UTIME_NOW else None if ns == UTIME_OMIT else seconds * NS_PER_SECOND + ns
        for seconds, ns in pairs
    )
    await attributes.set_times(thread, location, atime_ns, mtime_ns, to_now)
    return 0


def _signed(word: int) -> int:
    return (word ^ 1 << 63) - (1 << 63)


# truncate(2), umask(2) ---------------------------------------------------------------------------


@syscall(76, errnos=ERRNOS + " EFBIG EISDIR ETXTBSY")
async def truncate(thread: Thread, path: PathPointer, length: Long) -> int:
    """truncate(2): EINVAL for a negative length comes before the path."""
    if length < 0:
        raise EINVAL("negative length")
    location = await walk_with_flags(thread, AT_FDCWD, path, 0)
    check_file_size(thread, length)
    await attributes.truncate(thread, location, length)
    return 0


@syscall(77, errnos="EBADF EFBIG EINVAL EPERM")
async def ftruncate(thread: Thread, fd: Fd, length: Long) -> int:
    """ftruncate(2)."""
    if length < 0:
        raise EINVAL("negative length")
    file = open_file(thread, fd)
    check_file_size(thread, length)
    await attributes.ftruncate(thread, file, length)
    return 0


def check_file_size(thread: Thread, size: int) -> None:
    """Raises EFBIG, and SIGXFSZ, for a size past RLIMIT_FSIZE."""
    limit = thread.process.limits.soft(RLIMIT_FSIZE)
    if limit != RLIM_INFINITY and size > limit:
        raise_signal(thread, SIGXFSZ)
        raise EFBIG("past RLIMIT_FSIZE")


@syscall(95)
def umask(thread: Thread, mask: Int) -> int:
    """umask(2)."""
    old, thread.fs.umask = thread.fs.umask, mask & 0o777
    return old
