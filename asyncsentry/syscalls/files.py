"""Open files: lseek(2), getdents64(2), fallocate(2), fsync(2) and kin, fadvise64(2)."""

from __future__ import annotations

import os
from collections.abc import Callable

from asyncsentry.abi import fcntl_h as abi
from asyncsentry.abi.dirent_h import DIRENT, DIRENT64
from asyncsentry.abi.stat_h import S_IFBLK, S_IFDIR, S_IFIFO, S_IFREG
from asyncsentry.errnos import EBADF, EFBIG, EINVAL, EISDIR, ENODEV, EOPNOTSUPP, ESPIPE
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import FileSystem
from asyncsentry.fs.notify import IN_ACCESS, IN_MODIFY, notify_file
from asyncsentry.fs.path import location_of
from asyncsentry.syscalls.args import Buffer, Fd, Int, Long, Size, UInt
from asyncsentry.syscalls.attributes import check_file_size, open_file
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.thread import Thread

_Packer = Callable[[int, bytes, int, int], bytes]
_SEEK_MAX = 4
_OFFSET_MAX = (1 << 63) - 1
_DENTS_MAX = 1 << 20
"""Most bytes of rows one getdents64 gives, whatever the buffer."""
_FADVISE_MAX = 5


@syscall(8, errnos="EBADF EINVAL ENXIO EOVERFLOW ESPIPE")
def lseek(thread: Thread, fd: Fd, offset: Long, whence: UInt) -> int:
    """lseek(2)."""
    file = open_file(thread, fd)
    if whence > _SEEK_MAX:
        raise EINVAL(f"no whence {whence}")
    return file.seek(offset, whence)


# getdents(2) -------------------------------------------------------------------------------------


@syscall(217, errnos="EBADF EFAULT EINVAL ENOENT ENOTDIR")
async def getdents64(thread: Thread, fd: Fd, buffer: Buffer, count: UInt) -> int:
    """getdents64(2): EINVAL when not even one row fits."""
    return await _getdents(thread, fd, buffer, count, _row64)


@syscall(78, errnos="EBADF EFAULT EINVAL ENOENT ENOTDIR")
async def getdents(thread: Thread, fd: Fd, buffer: Buffer, count: UInt) -> int:
    """getdents(2): the older layout, with the type in the last byte."""
    return await _getdents(thread, fd, buffer, count, _row)


async def _getdents(thread: Thread, fd: int, buffer: int, count: int, pack: _Packer) -> int:
    file = open_file(thread, fd)
    rows = bytearray()
    position = file.position
    for following, name, ino, kind in await file.entries_from(position):
        row = pack(following, os.fsencode(name), ino, kind)
        if len(rows) + len(row) > min(count, _DENTS_MAX):
            if not rows:
                raise EINVAL("not even one row fits")
            break
        rows += row
        position = following
    thread.memory.write(buffer, bytes(rows))
    file.position = position
    if thread.kernel.inotify.watches:
        notify_file(file, IN_ACCESS)
    return len(rows)


def _row64(following: int, name: bytes, ino: int, kind: int) -> bytes:
    length = (DIRENT64.size + len(name) + 1 + 7) & ~7
    return (DIRENT64.pack(ino, following, length, kind) + name).ljust(length, b"\0")


def _row(following: int, name: bytes, ino: int, kind: int) -> bytes:
    length = (DIRENT.size + len(name) + 2 + 7) & ~7
    return (DIRENT.pack(ino, following, length) + name).ljust(length - 1, b"\0") + bytes((kind,))


# fallocate(2) ------------------------------------------------------------------------------------


@syscall(285, errnos="EBADF EFBIG EINTR EINVAL EISDIR ENODEV ENOSPC EOPNOTSUPP EPERM ESPIPE ETXTBSY")
async def fallocate(thread: Thread, fd: Fd, mode: Int, offset: Long, length: Long) -> int:
    """fallocate(2): range, then mode, then what is open."""
    file = open_file(thread, fd)
    if offset < 0 or length <= 0:
        raise EINVAL("no such range")
    _check_fallocate_mode(mode)
    _check_fallocate_file(file)
    if offset + length > _OFFSET_MAX:
        raise EFBIG("past the largest file size")
    if not mode & abi.FALLOC_FL_KEEP_SIZE:
        check_file_size(thread, offset + length)
    await file.fallocate(mode, offset, length)
    notify_file(file, IN_MODIFY)
    return 0


def _check_fallocate_mode(mode: int) -> None:
    """Raises EOPNOTSUPP unless the mode is one thing to do, with FALLOC_FL_KEEP_SIZE where that goes or must go."""
    action = mode & ~abi.FALLOC_FL_KEEP_SIZE
    keeps_size = bool(mode & abi.FALLOC_FL_KEEP_SIZE)
    if action not in (0, abi.FALLOC_FL_UNSHARE_RANGE, abi.FALLOC_FL_ZERO_RANGE) and (
        action not in (abi.FALLOC_FL_PUNCH_HOLE, abi.FALLOC_FL_COLLAPSE_RANGE, abi.FALLOC_FL_INSERT_RANGE)
        or keeps_size != (action == abi.FALLOC_FL_PUNCH_HOLE)
    ):
        raise EOPNOTSUPP(f"no fallocate mode {mode:#x}")


def _check_fallocate_file(file: File) -> None:
    if not file.writable:
        raise EBADF("not open for writing")
    kind = 0 if file.inode is None else file.inode.kind
    if kind == S_IFIFO:
        raise ESPIPE("a pipe")
    if kind == S_IFDIR:
        raise EISDIR("a directory")
    if kind not in (S_IFREG, S_IFBLK):
        raise ENODEV("not a regular file")


# fsync(2) and kin --------------------------------------------------------------------------------


@syscall(74, errnos="EBADF EINVAL EIO ENOSPC EROFS")
async def fsync(thread: Thread, fd: Fd) -> int:
    """fsync(2)."""
    await open_file(thread, fd).sync()
    return 0


@syscall(75, errnos="EBADF EINVAL EIO ENOSPC EROFS")
async def fdatasync(thread: Thread, fd: Fd) -> int:
    """fdatasync(2)."""
    await open_file(thread, fd).sync(data_only=True)
    return 0


@syscall(162)
async def sync(thread: Thread) -> int:
    """sync(2): every file system mounted where the thread is."""
    namespace = thread.fs.root.mount.namespace or thread.kernel.mounts
    filesystems: dict[FileSystem, None] = {mount.filesystem: None for mount in namespace}
    for filesystem in filesystems:
        await filesystem.sync()
    return 0


@syscall(306, errnos="EBADF EIO ENOSPC")
async def syncfs(thread: Thread, fd: Fd) -> int:
    """syncfs(2)."""
    await location_of(open_file(thread, fd)).mount.filesystem.sync()
    return 0


@syscall(277, errnos="EBADF EINVAL EIO ENOSPC ESPIPE")
async def sync_file_range(thread: Thread, fd: Fd, offset: Long, length: Long, flags: UInt) -> int:
    """sync_file_range(2): writes the whole file, which is more than asked but never less."""
    file = open_file(thread, fd)
    if flags & ~abi.SYNC_FILE_RANGE_VALID or offset < 0 or length < 0 or offset + length > _OFFSET_MAX:
        raise EINVAL("unknown flags or no such range")
    if file.inode is None or file.inode.kind not in (S_IFREG, S_IFBLK, S_IFDIR):
        raise ESPIPE("nothing with ranges")
    if flags:
        await file.sync(data_only=True)
    return 0


@syscall(221, errnos="EBADF EINVAL ESPIPE")
def fadvise64(thread: Thread, fd: Fd, offset: Long, length: Long, advice: Int) -> int:
    """fadvise64(2): checked, and then no more than advice."""
    file = open_file(thread, fd)
    if file.inode is not None and file.inode.kind == S_IFIFO:
        raise ESPIPE("a pipe")
    if length < 0 or not 0 <= advice <= _FADVISE_MAX:
        raise EINVAL("no such advice or range")
    return 0


@syscall(187, errnos="EBADF EINVAL")
def readahead(thread: Thread, fd: Fd, offset: Long, count: Size) -> int:
    """readahead(2): the host reads ahead by itself."""
    file = open_file(thread, fd)
    if not file.readable:
        raise EBADF("not open for reading")
    if file.inode is None or file.inode.kind not in (S_IFREG, S_IFBLK):
        raise EINVAL("not a regular file")
    return 0
