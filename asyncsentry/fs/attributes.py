"""Changing attributes: chmod(2), chown(2), utimensat(2), truncate(2), with the checks that come before.

After Linux's ``notify_change`` callers in fs/open.c and fs/utimes.c.
"""

from __future__ import annotations

from asyncsentry import errnos
from asyncsentry.abi.stat_h import S_IFDIR, S_IFREG
from asyncsentry.fs.access import (
    MAY_WRITE,
    check_access,
    check_chown,
    check_writable_mount,
    is_owner,
    mode_after_chown,
    mode_after_write,
    mode_for_chmod,
)
from asyncsentry.fs.dentry import Location
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import AttributeChange
from asyncsentry.fs.notify import IN_ATTRIB, IN_MODIFY, notify
from asyncsentry.fs.path import PathContext, location_of
from asyncsentry.fs.vfs import inode_at
from asyncsentry.fs.writecount import check_not_executed


async def chmod(context: PathContext, location: Location, mode: int) -> None:
    """Changes the permission bits; links have none."""
    check_writable_mount(location)
    inode = inode_at(location)
    if inode.is_symlink:
        raise errnos.EOPNOTSUPP("links have no mode of their own")
    mode = mode_for_chmod(context.credentials, inode, mode)
    await inode.set_attributes(AttributeChange(mode=mode))
    notify(location.dentry, IN_ATTRIB)


async def chown(context: PathContext, location: Location, uid: int | None, gid: int | None) -> None:
    """Changes owner and group; ``None`` leaves one alone. Set-ID bits of files go."""
    check_writable_mount(location)
    inode = inode_at(location)
    check_chown(context.credentials, inode, uid, gid)
    mode = mode_after_chown(inode)
    if mode is not None and not is_owner(context.credentials, inode):
        raise errnos.EPERM("only its owner may change the mode")
    await inode.set_attributes(AttributeChange(mode=mode, uid=uid, gid=gid))
    notify(location.dentry, IN_ATTRIB)


async def set_times(context: PathContext, location: Location, atime_ns: int | None, mtime_ns: int | None,
                    to_now: bool) -> None:
    """Sets time stamps. ``to_now`` says both are the present, which needs no more than write permission."""
    check_writable_mount(location)
    inode = inode_at(location)
    if not is_owner(context.credentials, inode):
        if not to_now:
            raise errnos.EPERM("only its owner may set other times than now")
        check_access(context.credentials, inode, MAY_WRITE)
    await inode.set_attributes(AttributeChange(atime_ns=atime_ns, mtime_ns=mtime_ns))
    notify(location.dentry, IN_ATTRIB)


async def truncate(context: PathContext, location: Location, size: int) -> None:
    """Sets a file's size by path."""
    inode = inode_at(location)
    if inode.kind == S_IFDIR:
        raise errnos.EISDIR("is a directory")
    if inode.kind != S_IFREG:
        raise errnos.EINVAL("not a regular file")
    check_writable_mount(location)
    check_access(context.credentials, inode, MAY_WRITE)
    check_not_executed(inode)
    await _set_size(context, location, size)


async def ftruncate(context: PathContext, file: File, size: int) -> None:
    """Sets the size of an open file."""
    if file.inode is None or file.inode.kind != S_IFREG or not file.writable:
        raise errnos.EINVAL("not a regular file open for writing")
    await _set_size(context, location_of(file), size)


async def _set_size(context: PathContext, location: Location, size: int) -> None:
    inode = inode_at(location)
    change = AttributeChange(size=size, mode=mode_after_write(context.credentials, inode))
    await inode.set_attributes(change)
    notify(location.dentry, IN_MODIFY)
