"""Extended attributes: getxattr(2), setxattr(2), listxattr(2), removexattr(2), each by path, link, descriptor, *at."""

from __future__ import annotations

import os

from asyncsentry.abi.fcntl_h import AT_FDCWD, AT_SYMLINK_NOFOLLOW
from asyncsentry.abi.xattr_h import (
    XATTR_ARGS,
    XATTR_CREATE,
    XATTR_LIST_MAX,
    XATTR_NAME_MAX,
    XATTR_REPLACE,
    XATTR_SIZE_MAX,
)
from asyncsentry.errnos import E2BIG, EINVAL, ENAMETOOLONG, ERANGE
from asyncsentry.fs import xattr
from asyncsentry.fs.access import check_writable_mount
from asyncsentry.fs.dentry import Location
from asyncsentry.fs.notify import IN_ATTRIB, notify
from asyncsentry.fs.path import location_of
from asyncsentry.fs.vfs import inode_at
from asyncsentry.syscalls.args import Buffer, Fd, Flags, Int, PathPointer, Pointer, Size
from asyncsentry.syscalls.attributes import open_file, walk_with_flags
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.status import WALK_ERRNOS
from asyncsentry.tasks.thread import Thread

ERRNOS = WALK_ERRNOS + " EBADF EEXIST EINVAL ENODATA ENOSPC EOPNOTSUPP EPERM ERANGE EROFS E2BIG"
_PAGE = 4096


# setxattr ----------------------------------------------------------------------------------------


@syscall(188, errnos=ERRNOS)
async def setxattr(thread: Thread, path: PathPointer, name: Pointer, value: Buffer, size: Size, flags: Int) -> int:
    """setxattr(2)."""
    pair = _read_pair(thread, name, value, size, flags)
    return await _set(thread, await walk_with_flags(thread, AT_FDCWD, path, 0), pair, flags)


@syscall(189, errnos=ERRNOS)
async def lsetxattr(thread: Thread, path: PathPointer, name: Pointer, value: Buffer, size: Size, flags: Int) -> int:
    """lsetxattr(2)."""
    pair = _read_pair(thread, name, value, size, flags)
    return await _set(thread, await walk_with_flags(thread, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), pair, flags)


@syscall(190, errnos=ERRNOS)
async def fsetxattr(thread: Thread, fd: Fd, name: Pointer, value: Buffer, size: Size, flags: Int) -> int:
    """fsetxattr(2)."""
    location = location_of(open_file(thread, fd))
    return await _set(thread, location, _read_pair(thread, name, value, size, flags), flags)


@syscall(463, errnos=ERRNOS)
async def setxattrat(thread: Thread, dirfd: Fd, path: PathPointer, at_flags: Flags, name: Pointer, args: Pointer,
                     size: Size) -> int:
    """setxattrat(2): value, its size and flags come in a structure."""
    value, length, flags = _read_args(thread, args, size)
    pair = _read_pair(thread, name, value, length, flags)
    return await _set(thread, await walk_with_flags(thread, dirfd, path, at_flags), pair, flags)


async def _set(thread: Thread, location: Location, pair: tuple[str, bytes], flags: int) -> int:
    name, value = pair
    check_writable_mount(location)
    inode = inode_at(location)
    xattr.check_name(name)
    xattr.check_permission(thread.credentials, inode, name, writing=True)
    await inode.set_xattr(name, value, flags)
    notify(location.dentry, IN_ATTRIB)
    return 0


def _read_pair(thread: Thread, name: int, value: int, size: int, flags: int) -> tuple[str, bytes]:
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        raise EINVAL("unknown flags")
    text = _read_name(thread, name)
    if size > XATTR_SIZE_MAX:
        raise E2BIG("the value is over 64 KiB")
    return text, thread.memory.read(value, size) if size else b""


def _read_name(thread: Thread, address: int) -> str:
    try:
        name = thread.memory.read_string(address, XATTR_NAME_MAX + 1)
    except ENAMETOOLONG:
        raise ERANGE("the name is too long") from None
    if not 0 < len(name) <= XATTR_NAME_MAX:
        raise ERANGE("the name is empty or too long")
    return os.fsdecode(name)


def _read_args(thread: Thread, args: int, size: int) -> tuple[int, int, int]:
    """Copies and checks ``struct xattr_args``: gives value, size and flags."""
    if size < XATTR_ARGS.size:
        raise EINVAL("struct xattr_args is larger than that")
    if size > _PAGE:
        raise E2BIG("struct xattr_args is at most a page")
    copied = thread.memory.read(args, size)
    if any(copied[XATTR_ARGS.size :]):
        raise E2BIG("struct xattr_args has unknown fields")
    value, length, flags = XATTR_ARGS.unpack_from(copied)
    return value, length, flags


# getxattr ----------------------------------------------------------------------------------------


@syscall(191, errnos=ERRNOS)
async def getxattr(thread: Thread, path: PathPointer, name: Pointer, value: Buffer, size: Size) -> int:
    """getxattr(2): a size of 0 asks how long the value is."""
    return await _get(thread, await walk_with_flags(thread, AT_FDCWD, path, 0), name, value, size)


@syscall(192, errnos=ERRNOS)
async def lgetxattr(thread: Thread, path: PathPointer, name: Pointer, value: Buffer, size: Size) -> int:
    """lgetxattr(2)."""
    return await _get(thread, await walk_with_flags(thread, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), name, value, size)


@syscall(193, errnos=ERRNOS)
async def fgetxattr(thread: Thread, fd: Fd, name: Pointer, value: Buffer, size: Size) -> int:
    """fgetxattr(2)."""
    return await _get(thread, location_of(open_file(thread, fd)), name, value, size)


@syscall(464, errnos=ERRNOS)
async def getxattrat(thread: Thread, dirfd: Fd, path: PathPointer, at_flags: Flags, name: Pointer, args: Pointer,
                     size: Size) -> int:
    """getxattrat(2)."""
    value, length, flags = _read_args(thread, args, size)
    if flags:
        raise EINVAL("no flags for reading")
    return await _get(thread, await walk_with_flags(thread, dirfd, path, at_flags), name, value, length)


async def _get(thread: Thread, location: Location, name: int, buffer: int, size: int) -> int:
    text = _read_name(thread, name)
    inode = inode_at(location)
    xattr.check_name(text)
    xattr.check_permission(thread.credentials, inode, text, writing=False)
    value = await inode.get_xattr(text)
    return _answer(thread, value, buffer, size)


def _answer(thread: Thread, data: bytes, buffer: int, size: int) -> int:
    if size:
        if len(data) > size:
            raise ERANGE("the buffer is too small")
        thread.memory.write(buffer, data)
    return len(data)


# listxattr ---------------------------------------------------------------------------------------


@syscall(194, errnos=ERRNOS)
async def listxattr(thread: Thread, path: PathPointer, buffer: Buffer, size: Size) -> int:
    """listxattr(2): names, each with a NUL."""
    return await _list(thread, await walk_with_flags(thread, AT_FDCWD, path, 0), buffer, size)


@syscall(195, errnos=ERRNOS)
async def llistxattr(thread: Thread, path: PathPointer, buffer: Buffer, size: Size) -> int:
    """llistxattr(2)."""
    return await _list(thread, await walk_with_flags(thread, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), buffer, size)


@syscall(196, errnos=ERRNOS)
async def flistxattr(thread: Thread, fd: Fd, buffer: Buffer, size: Size) -> int:
    """flistxattr(2)."""
    return await _list(thread, location_of(open_file(thread, fd)), buffer, size)


@syscall(465, errnos=ERRNOS)
async def listxattrat(thread: Thread, dirfd: Fd, path: PathPointer, at_flags: Flags, buffer: Buffer,
                      size: Size) -> int:
    """listxattrat(2)."""
    return await _list(thread, await walk_with_flags(thread, dirfd, path, at_flags), buffer, size)


async def _list(thread: Thread, location: Location, buffer: int, size: int) -> int:
    names = xattr.visible(thread.credentials, await inode_at(location).list_xattrs())
    data = b"".join(os.fsencode(name) + b"\0" for name in names)
    if len(data) > XATTR_LIST_MAX:
        raise E2BIG("more than 64 KiB of names")
    return _answer(thread, data, buffer, size)


# removexattr -------------------------------------------------------------------------------------


@syscall(197, errnos=ERRNOS)
async def removexattr(thread: Thread, path: PathPointer, name: Pointer) -> int:
    """removexattr(2)."""
    return await _remove(thread, await walk_with_flags(thread, AT_FDCWD, path, 0), name)


@syscall(198, errnos=ERRNOS)
async def lremovexattr(thread: Thread, path: PathPointer, name: Pointer) -> int:
    """lremovexattr(2)."""
    return await _remove(thread, await walk_with_flags(thread, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), name)


@syscall(199, errnos=ERRNOS)
async def fremovexattr(thread: Thread, fd: Fd, name: Pointer) -> int:
    """fremovexattr(2)."""
    return await _remove(thread, location_of(open_file(thread, fd)), name)


@syscall(466, errnos=ERRNOS)
async def removexattrat(thread: Thread, dirfd: Fd, path: PathPointer, at_flags: Flags, name: Pointer) -> int:
    """removexattrat(2)."""
    return await _remove(thread, await walk_with_flags(thread, dirfd, path, at_flags), name)


async def _remove(thread: Thread, location: Location, name: int) -> int:
    text = _read_name(thread, name)
    check_writable_mount(location)
    inode = inode_at(location)
    xattr.check_name(text)
    xattr.check_permission(thread.credentials, inode, text, writing=True)
    await inode.remove_xattr(text)
    notify(location.dentry, IN_ATTRIB)
    return 0
