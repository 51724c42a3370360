"""What files are: stat(2) and kin, statx(2), access(2) and kin, statfs(2), readlink(2).

Programs ask for attributes all the time, mostly of files whose names are cached: such a walk, :func:`walk_cached`,
is answered without a coroutine.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable

from asyncsentry.abi.fcntl_h import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
)
from asyncsentry.abi.mount_h import (
    MS_NOEXEC,
    MS_NOSYMFOLLOW,
    MS_RELATIME,
    ST_NOSYMFOLLOW,
    ST_RELATIME,
    ST_VALID,
    STATFS,
)
from asyncsentry.abi.stat_h import (
    S_IFDIR,
    S_IFLNK,
    S_IFREG,
    STAT,
    STATX,
    STATX_ATTR_MOUNT_ROOT,
    STATX_BASIC_STATS,
    STATX_BTIME,
    STATX_MNT_ID,
    STATX_RESERVED,
)
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import EACCES, EINVAL, ENOENT, EROFS
from asyncsentry.fs.access import MAY_EXEC, MAY_WRITE, permits
from asyncsentry.fs.dentry import Location
from asyncsentry.fs.inode import Inode, Stat
from asyncsentry.fs.path import location_of, resolve, walk_cached
from asyncsentry.fs.vfs import inode_at
from asyncsentry.syscalls.args import Buffer, Fd, Flags, Int, PathPointer, Pointer, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.thread import Thread

WALK_ERRNOS = "EACCES EFAULT ELOOP ENAMETOOLONG ENOENT ENOTDIR"
_STAT_FLAGS = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE
_ST_SAME_AS_MS = 0x1 | 0x2 | 0x4 | 0x8 | 0x400 | 0x800
_PATH_MAX = 4096


async def stat_at(location: Location) -> Stat:
    """Gives the present attributes of what is at a location."""
    inode = inode_at(location)
    if not inode.filesystem.exclusive:
        await inode.refresh()
    return inode.stat()


def read_path_or_empty(thread: Thread, path: int, flags: int) -> str:
    """Copies a path; with AT_EMPTY_PATH a null pointer stands for the empty one, as since Linux 6.11."""
    return "" if not path and flags & AT_EMPTY_PATH else thread.memory.read_path(path)


def _write_stat(thread: Thread, buffer: int, stat: Stat) -> int:
    thread.memory.write(buffer, STAT.pack(
        stat.dev, stat.ino, stat.nlink, stat.mode, stat.uid, stat.gid, 0, stat.rdev, stat.size, stat.blksize,
        stat.blocks, *divmod(stat.atime_ns, NS_PER_SECOND), *divmod(stat.mtime_ns, NS_PER_SECOND),
        *divmod(stat.ctime_ns, NS_PER_SECOND),
    ))  # fmt: skip
    return 0


@syscall(4, errnos=WALK_ERRNOS)
def stat(thread: Thread, path: PathPointer, buffer: Pointer) -> int | Awaitable[int]:
    """stat(2)."""
    return _stat(thread, AT_FDCWD, thread.memory.read_path(path), buffer, 0)


@syscall(6, errnos=WALK_ERRNOS)
def lstat(thread: Thread, path: PathPointer, buffer: Pointer) -> int | Awaitable[int]:
    """lstat(2)."""
    return _stat(thread, AT_FDCWD, thread.memory.read_path(path), buffer, AT_SYMLINK_NOFOLLOW)


@syscall(5, errnos="EBADF EFAULT")
def fstat(thread: Thread, fd: Fd, buffer: Pointer) -> int | Awaitable[int]:
    """fstat(2): works for O_PATH descriptors too."""
    return _stat_found(thread, location_of(thread.fds.get(fd)), buffer)


@syscall(262, errnos=WALK_ERRNOS + " EBADF EINVAL")
def newfstatat(thread: Thread, dirfd: Fd, path: PathPointer, buffer: Pointer, flags: Flags) -> int | Awaitable[int]:
    """newfstatat(2), glibc's fstatat."""
    if flags & ~_STAT_FLAGS:
        raise EINVAL("unknown flags")
    return _stat(thread, dirfd, read_path_or_empty(thread, path, flags), buffer, flags)


def _stat(thread: Thread, dirfd: int, path: str, buffer: int, flags: int) -> int | Awaitable[int]:
    location = walk_cached(thread, dirfd, path, not flags & AT_SYMLINK_NOFOLLOW) if path else None
    if location is None:
        return _stat_walked(thread, dirfd, path, buffer, flags)
    return _stat_found(thread, location, buffer)


def _stat_found(thread: Thread, location: Location, buffer: int) -> int | Awaitable[int]:
    inode = inode_at(location)
    if not inode.filesystem.exclusive:
        return _stat_refreshed(thread, inode, buffer)
    return _write_stat(thread, buffer, inode.stat())


async def _stat_walked(thread: Thread, dirfd: int, path: str, buffer: int, flags: int) -> int:
    return _write_stat(thread, buffer, await stat_at(await _walk(thread, dirfd, path, flags)))


async def _stat_refreshed(thread: Thread, inode: Inode, buffer: int) -> int:
    await inode.refresh()
    return _write_stat(thread, buffer, inode.stat())


async def _walk(thread: Thread, dirfd: int, path: str, flags: int) -> Location:
    return await resolve(thread, dirfd, path, not flags & AT_SYMLINK_NOFOLLOW, bool(flags & AT_EMPTY_PATH))


@syscall(332, errnos=WALK_ERRNOS + " EBADF EINVAL")
def statx(thread: Thread, dirfd: Fd, path: PathPointer, flags: Flags, mask: UInt,
          buffer: Pointer) -> int | Awaitable[int]:
    """statx(2): reserved bits of the mask, then the flags, then the path."""
    if mask & STATX_RESERVED or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE or flags & ~_STAT_FLAGS:
        raise EINVAL("unknown flags or a reserved mask bit")
    text = read_path_or_empty(thread, path, flags)
    location = walk_cached(thread, dirfd, text, not flags & AT_SYMLINK_NOFOLLOW) if text else None
    if location is None:
        return _statx_walked(thread, dirfd, text, buffer, flags)
    thread.memory.write(buffer, _pack_statx(location, inode_at(location).stat()))
    return 0


async def _statx_walked(thread: Thread, dirfd: int, path: str, buffer: int, flags: int) -> int:
    location = await _walk(thread, dirfd, path, flags)
    thread.memory.write(buffer, _pack_statx(location, await stat_at(location)))
    return 0


def _pack_statx(location: Location, stat: Stat) -> bytes:
    mount, dentry = location
    mask = STATX_BASIC_STATS | STATX_MNT_ID | (STATX_BTIME if stat.btime_ns else 0)
    return STATX.pack(
        mask, stat.blksize, STATX_ATTR_MOUNT_ROOT if dentry is mount.root else 0, stat.nlink, stat.uid, stat.gid,
        stat.mode, 0, stat.ino, stat.size, stat.blocks, STATX_ATTR_MOUNT_ROOT,
        *divmod(stat.atime_ns, NS_PER_SECOND), 0, *divmod(stat.btime_ns, NS_PER_SECOND), 0,
        *divmod(stat.ctime_ns, NS_PER_SECOND), 0, *divmod(stat.mtime_ns, NS_PER_SECOND), 0,
        os.major(stat.rdev), os.minor(stat.rdev), os.major(stat.dev), os.minor(stat.dev), mount.mount_id,
    )  # fmt: skip


# access(2) ---------------------------------------------------------------------------------------


@syscall(21, errnos=WALK_ERRNOS + " EINVAL EROFS")
def access(thread: Thread, path: PathPointer, mode: Int) -> int | Awaitable[int]:
    """access(2): checks with the real IDs."""
    return _access(thread, AT_FDCWD, path, mode, 0)


@syscall(269, errnos=WALK_ERRNOS + " EBADF EINVAL EROFS")
def faccessat(thread: Thread, dirfd: Fd, path: PathPointer, mode: Int) -> int | Awaitable[int]:
    """faccessat(2) without flags, as the older call has none."""
    return _access(thread, dirfd, path, mode, 0)


@syscall(439, errnos=WALK_ERRNOS + " EBADF EINVAL EROFS")
def faccessat2(thread: Thread, dirfd: Fd, path: PathPointer, mode: Int, flags: Flags) -> int | Awaitable[int]:
    """faccessat2(2)."""
    return _access(thread, dirfd, path, mode, flags)


def _access(thread: Thread, dirfd: int, path: int, mode: int, flags: int) -> int | Awaitable[int]:
    if mode & ~7 or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise EINVAL("unknown mode or flags")
    text = read_path_or_empty(thread, path, flags)
    if text and (flags & AT_EACCESS or _has_real_ids(thread.credentials)):
        location = walk_cached(thread, dirfd, text, not flags & AT_SYMLINK_NOFOLLOW)
        if location is not None:
            return _check_access(thread, location, mode)
    return _access_walked(thread, dirfd, text, mode, flags)


async def _access_walked(thread: Thread, dirfd: int, path: str, mode: int, flags: int) -> int:
    own = thread.credentials
    if not flags & AT_EACCESS and not _has_real_ids(own):
        effective = own.permitted if own.ruid == 0 else 0
        thread.credentials = own.change(fsuid=own.ruid, fsgid=own.rgid, effective=effective)
    try:
        location = await _walk(thread, dirfd, path, flags)
        inode = inode_at(location)
        if not inode.filesystem.exclusive:
            await inode.refresh()
        return _check_access(thread, location, mode)
    finally:
        thread.credentials = own


def _check_access(thread: Thread, location: Location, mode: int) -> int:
    inode = inode_at(location)
    if mode & MAY_EXEC and inode.kind == S_IFREG and location.mount.flags & MS_NOEXEC:
        raise EACCES("nothing is executed on this mount")
    if not permits(thread.credentials, inode, mode):
        raise EACCES("permission denied by mode")
    if mode & MAY_WRITE and location.mount.read_only and inode.kind in (S_IFREG, S_IFDIR, S_IFLNK):
        raise EROFS("mounted read-only")
    return 0


def _has_real_ids(own: Credentials) -> bool:
    """Whether walking with the real IDs and their capabilities makes no difference, ``access_override_creds``."""
    effective = own.permitted if own.ruid == 0 else 0
    return own.fsuid == own.ruid and own.fsgid == own.rgid and own.effective == effective


# readlink(2), statfs(2) --------------------------------------------------------------------------


@syscall(89, errnos=WALK_ERRNOS + " EINVAL")
async def readlink(thread: Thread, path: PathPointer, buffer: Buffer, size: Int) -> int:
    """readlink(2): the target is cut to the buffer, without a NUL."""
    return await _readlink(thread, AT_FDCWD, path, buffer, size)


@syscall(267, errnos=WALK_ERRNOS + " EBADF EINVAL")
async def readlinkat(thread: Thread, dirfd: Fd, path: PathPointer, buffer: Buffer, size: Int) -> int:
    """readlinkat(2): an empty path means the link opened as ``dirfd`` with O_PATH."""
    return await _readlink(thread, dirfd, path, buffer, size)


async def _readlink(thread: Thread, dirfd: int, path: int, buffer: int, size: int) -> int:
    if size <= 0:
        raise EINVAL("no room for a target")
    text = thread.memory.read_path(path)
    location = await resolve(thread, dirfd, text, follow=False, empty_path=dirfd != AT_FDCWD)
    inode = inode_at(location)
    if not inode.is_symlink:
        if not text:
            raise ENOENT("an empty path, and no link opened")
        raise EINVAL("not a symbolic link")
    target = os.fsencode(await inode.readlink_by(thread))[: min(size, _PATH_MAX)]
    thread.memory.write(buffer, target)
    return len(target)


@syscall(137, errnos=WALK_ERRNOS)
async def statfs(thread: Thread, path: PathPointer, buffer: Pointer) -> int:
    """statfs(2)."""
    return await _write_statfs(thread, buffer, await resolve(thread, AT_FDCWD, thread.memory.read_path(path)))


@syscall(138, errnos="EBADF EFAULT")
async def fstatfs(thread: Thread, fd: Fd, buffer: Pointer) -> int:
    """fstatfs(2): works for O_PATH descriptors too."""
    return await _write_statfs(thread, buffer, location_of(thread.fds.get(fd)))


async def _write_statfs(thread: Thread, buffer: int, location: Location) -> int:
    mount = location.mount
    await mount.filesystem.refresh()
    answer = mount.filesystem.statfs()
    flags = ST_VALID | mount.flags & _ST_SAME_AS_MS | (1 if mount.read_only else 0)
    flags |= (ST_RELATIME if mount.flags & MS_RELATIME else 0) | (
        ST_NOSYMFOLLOW if mount.flags & MS_NOSYMFOLLOW else 0)
    device = mount.filesystem.device
    thread.memory.write(buffer, STATFS.pack(
        answer.magic, answer.block_size, answer.blocks, answer.blocks_free, answer.blocks_available, answer.files,
        answer.files_free, device & 0x7FFFFFFF, device >> 32 & 0x7FFFFFFF, answer.name_length_max,
        answer.block_size, flags,
    ))  # fmt: skip
    return 0
