"""Changing names: mkdir(2), mknod(2), symlink(2), link(2), unlink(2), rmdir(2), rename(2).

Each function walks to the directory, checks in Linux's order, asks the file system, and keeps the dentry cache in
step, all under the file system's ``changes`` lock. After Linux's fs/namei.c (``filename_create``, ``do_unlinkat``,
``do_renameat2`` …).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asyncsentry import errnos
from asyncsentry.abi.capability_h import CAP_MKNOD
from asyncsentry.abi.stat_h import (
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    S_ISVTX,
)
from asyncsentry.fs.access import check_create, check_delete, check_link_source, check_writable_mount, mode_for_new
from asyncsentry.fs.dcache import check_name, remember_absence
from asyncsentry.fs.dentry import Dentry, Location
from asyncsentry.fs.inode import Inode, Owner
from asyncsentry.fs.notify import IN_ATTRIB, IN_CREATE, IN_DELETE, IN_DELETE_SELF, notify_name, notify_self
from asyncsentry.fs.path import Parent, PathContext, walk_parent
from asyncsentry.fs.vfs import forget, inode_at, instantiate

Make = Callable[[Inode, str, int, Owner], Awaitable[Inode]]
"""Makes one kind of file: directory, name, mode with type, owner."""


async def mkdir(context: PathContext, dirfd: int, path: str, mode: int) -> Location:
    """Makes a directory."""
    return await _make(context, dirfd, path, S_IFDIR | mode & (0o777 | S_ISVTX), _make_directory)


async def mknod(context: PathContext, dirfd: int, path: str, mode: int, device: int = 0) -> Location:
    """Makes a regular file, FIFO, socket or device node; a type of 0 means a regular file."""
    kind = mode & S_IFMT or S_IFREG
    if kind == S_IFDIR:
        raise errnos.EPERM("directories are made by mkdir")
    if kind not in (S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK):
        raise errnos.EINVAL(f"no such type {kind:o}")
    if kind in (S_IFCHR, S_IFBLK) and not context.credentials.has(CAP_MKNOD):
        raise errnos.EPERM("device nodes need CAP_MKNOD")
    node = _Node(device if kind in (S_IFCHR, S_IFBLK) else 0)
    return await _make(context, dirfd, path, kind | mode & 0o7777, node.make)


async def symlink(context: PathContext, target: str, dirfd: int, path: str) -> Location:
    """Makes a symbolic link."""
    if not target:
        raise errnos.ENOENT("an empty target")
    return await _make(context, dirfd, path, S_IFLNK | 0o777, _Link(target).make, umask=0)


async def link(context: PathContext, old: Location, dirfd: int, path: str) -> None:
    """Gives an existing file one more name."""
    parent = await walk_parent(context, dirfd, path)
    inode = inode_at(old)
    async with inode_at(parent.location).filesystem.changes:
        await _check_new_name(context, parent, is_directory=False)
        if old.mount is not parent.location.mount:
            raise errnos.EXDEV("another mount")
        check_link_source(context.credentials, inode)
        check_create(context.credentials, inode_at(parent.location))
        if inode.is_directory:
            raise errnos.EPERM("directories have one name")
        if inode.nlink == 0 and not inode.is_linkable:
            raise errnos.ENOENT("its last name is gone")
        await inode_at(parent.location).link(parent.name, inode)
        instantiate(parent.location.dentry, parent.name, inode)
    inode.is_linkable = False
    notify_name(parent.location.dentry, parent.name, IN_CREATE, is_directory=False)
    notify_self(old.dentry, IN_ATTRIB)


async def unlink(context: PathContext, dirfd: int, path: str) -> None:
    """Takes a name away from a file."""
    parent = await walk_parent(context, dirfd, path)
    if not parent.is_ordinary:
        raise errnos.EISDIR("the path names a directory")
    async with inode_at(parent.location).filesystem.changes:
        victim = await _existing(parent)
        inode = victim.inode
        assert inode is not None
        if parent.trailing_slash:
            raise errnos.EISDIR("is a directory") if inode.is_directory else errnos.ENOTDIR("not a directory")
        check_delete(context.credentials, inode_at(parent.location), inode, as_directory=False)
        if victim.mounts:
            raise errnos.EBUSY("a mount point")
        await inode_at(parent.location).unlink(parent.name, inode)
        disappear(victim)
    notify_self(victim, IN_ATTRIB)
    if inode.nlink == 0:
        notify_self(victim, IN_DELETE_SELF)
    notify_name(parent.location.dentry, parent.name, IN_DELETE, is_directory=False)


async def rmdir(context: PathContext, dirfd: int, path: str) -> None:
    """Removes an empty directory."""
    parent = await walk_parent(context, dirfd, path)
    if parent.name == "..":
        raise errnos.ENOTEMPTY("a parent is never empty")
    if parent.name == ".":
        raise errnos.EINVAL("the path ends in a dot")
    if not parent.name:
        raise errnos.EBUSY("the root")
    async with inode_at(parent.location).filesystem.changes:
        victim = await _existing(parent)
        inode = victim.inode
        assert inode is not None
        check_delete(context.credentials, inode_at(parent.location), inode, as_directory=True)
        if victim.mounts:
            raise errnos.EBUSY("a mount point")
        await inode_at(parent.location).rmdir(parent.name, inode)
        disappear(victim)
    notify_self(victim, IN_DELETE_SELF)
    notify_name(parent.location.dentry, parent.name, IN_DELETE, is_directory=True)


def disappear(victim: Dentry) -> None:
    """Takes a dentry out of the cache, leaving the knowledge that the name is gone."""
    victim.unlinked = True
    directory = victim.parent
    if directory is None or directory.children.get(victim.name) is not victim:
        return
    del directory.children[victim.name]
    if directory.inode is not None and directory.inode.filesystem.exclusive:
        remember_absence(directory, Dentry(victim.name, directory, None))


async def _make(context: PathContext, dirfd: int, path: str, mode: int, make: Make,
                umask: int | None = None) -> Location:
    parent = await walk_parent(context, dirfd, path)
    directory = inode_at(parent.location)
    is_directory = mode & S_IFMT == S_IFDIR
    async with directory.filesystem.changes:
        await _check_new_name(context, parent, is_directory)
        check_create(context.credentials, directory)
        mode &= ~(context.fs.umask if umask is None else umask)
        mode, gid = mode_for_new(context.credentials, directory, mode)
        try:
            inode = await make(directory, parent.name, mode, Owner(context.credentials.fsuid, gid))
        except errnos.EEXIST:
            forget(parent.location.dentry, parent.name)
            raise
        dentry = instantiate(parent.location.dentry, parent.name, inode)
    notify_name(parent.location.dentry, parent.name, IN_CREATE, is_directory)
    return Location(parent.location.mount, dentry)


async def _check_new_name(context: PathContext, parent: Parent, is_directory: bool) -> None:
    """Raises unless the name is new and something may be made in its directory's mount."""
    if not parent.is_ordinary:
        raise errnos.EEXIST("the path names a directory")
    found = await parent.look()
    if found.inode is not None:
        raise errnos.EEXIST(f"{parent.name!r} exists")
    if parent.trailing_slash and not is_directory:
        raise errnos.ENOENT("a path that ends in a slash is for directories")
    check_writable_mount(parent.location)
    if parent.location.dentry.unlinked:
        raise errnos.ENOENT("the directory was removed")


async def _existing(parent: Parent) -> Dentry:
    """Looks up a name to be removed."""
    check_writable_mount(parent.location)
    check_name(parent.name)
    found = await parent.look()
    if found.inode is None:
        raise errnos.ENOENT(f"no {parent.name!r}")
    return found


async def _make_directory(directory: Inode, name: str, mode: int, owner: Owner) -> Inode:
    return await directory.mkdir(name, mode & 0o7777, owner)


class _Node:
    """How a node that is not a directory is made."""

    def __init__(self, device: int) -> None:
        self.device = device

    async def make(self, directory: Inode, name: str, mode: int, owner: Owner) -> Inode:
        """Makes it."""
        if mode & S_IFMT == S_IFREG:
            return await directory.create(name, mode & 0o7777, owner)
        return await directory.mknod(name, mode, self.device, owner)


class _Link:
    """How a symbolic link is made."""

    def __init__(self, target: str) -> None:
        self.target = target

    async def make(self, directory: Inode, name: str, mode: int, owner: Owner) -> Inode:
        """Makes it."""
        return await directory.symlink(name, self.target, owner)
