"""Opening files by path, open(2) and openat2(2): checks in Linux's order, then the file system's own open.

The other half of the virtual file system, changing names, is ``names.py``; attributes are ``attributes.py``.
What walks paths is re-exported from ``path.py``. After Linux's ``path_openat``, ``do_open`` and ``may_open``.
"""

from __future__ import annotations

from typing import NamedTuple

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import (
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_LARGEFILE,
    O_NOATIME,
    O_NOCTTY,
    O_NOFOLLOW,
    O_PATH,
    O_PATH_FLAGS,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    O_TMPFILE_BIT,
    O_TRUNC,
    O_VALID,
    O_WRONLY,
)
from asyncsentry.abi.mount_h import MS_NODEV, MS_NOEXEC
from asyncsentry.abi.stat_h import S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG
from asyncsentry.fs.access import (
    MAY_EXEC,
    MAY_READ,
    MAY_WRITE,
    check_access,
    check_create,
    check_writable_mount,
    is_owner,
    mode_after_write,
    mode_for_new,
)
from asyncsentry.fs.dcache import lookup
from asyncsentry.fs.dentry import Dentry, Location
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import AttributeChange, Inode, Owner
from asyncsentry.fs.notify import IN_CREATE, IN_MODIFY, IN_OPEN, notify, notify_name
from asyncsentry.fs.path import (
    Parent,
    PathContext,
    Walker,
    location_of,
    parent_cached,
    path_of,
    resolve,
    resolve_parent,
    walk_cached,
    walk_parent,
)
from asyncsentry.fs.writecount import begin_write, check_not_executed, deny_write

__all__ = [
    "Parent", "PathContext", "PathFile", "location_of", "open_executable", "open_location", "open_path", "path_of",
    "resolve", "resolve_parent", "walk_parent",
]  # fmt: skip

_ACCESS = {O_RDONLY: MAY_READ, O_WRONLY: MAY_WRITE, O_RDWR: MAY_READ | MAY_WRITE, O_ACCMODE: MAY_READ | MAY_WRITE}
_NOT_KEPT = O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC


class PathFile(File):
    """What O_PATH opens: a place in the tree, neither readable nor writable."""

    def describe(self) -> str:
        """Gives a name for the rare place that has none."""
        return "anon_inode:[path]"


class _Found(NamedTuple):
    location: Location
    is_new: bool
    needs_directory: bool


async def open_path(context: PathContext, dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> File:
    """Opens what a path leads to, as open(2) does with these ``O_*`` flags; ``resolve`` is openat2(2)'s.

    The file has no reference yet: installing it in a descriptor table takes the first.
    """
    flags = flags & O_VALID | O_LARGEFILE
    if flags & O_PATH:
        return await _open_path_only(context, dirfd, path, flags & O_PATH_FLAGS, resolve)
    _check_flags(flags)
    if flags & O_TMPFILE_BIT:
        return await _open_unnamed(context, dirfd, path, flags, mode, resolve)
    if flags & O_CREAT:
        found = await _find_or_create(context, dirfd, path, flags, mode & 0o7777, resolve)
    else:
        cached = walk_cached(context, dirfd, path, not flags & O_NOFOLLOW) if path and not resolve else None
        location = cached or await _resolve(context, dirfd, path, not flags & O_NOFOLLOW, resolve)
        found = _Found(location, False, False)
    return await _open_found(context, found, flags)


async def open_location(context: PathContext, location: Location, flags: int) -> File:
    """Opens a place already found, with all checks of open(2)."""
    return await _open_found(context, _Found(location, False, False), flags & O_VALID | O_LARGEFILE)


async def open_executable(context: PathContext, dirfd: int, path: str, follow: bool = True,
                          empty_path: bool = False) -> File:
    """Opens a regular file for execve(2): EACCES unless it may be executed. While it is open nobody writes it."""
    location = await resolve(context, dirfd, path, follow, empty_path)
    inode = inode_at(location)
    if inode.kind == S_IFLNK:
        raise errnos.ELOOP("a symbolic link")
    if inode.kind != S_IFREG or location.mount.flags & MS_NOEXEC:
        raise errnos.EACCES("not a regular file on an executable mount")
    check_access(context.credentials, inode, MAY_EXEC)
    file = await inode.open(O_RDONLY | O_LARGEFILE, location, context)
    try:
        deny_write(file)
    except errnos.ETXTBSY:
        await file.release()
        raise
    notify(location.dentry, IN_OPEN)
    return file


def inode_at(location: Location) -> Inode:
    """Gives what stands at an existing location."""
    inode = location.dentry.inode
    assert inode is not None
    return inode


def _check_flags(flags: int) -> None:
    if flags & O_TMPFILE_BIT:
        if flags & (O_TMPFILE | O_CREAT) != O_TMPFILE or flags & O_ACCMODE == O_RDONLY:
            raise errnos.EINVAL("O_TMPFILE needs write access and no O_CREAT")
    elif flags & (O_DIRECTORY | O_CREAT) == O_DIRECTORY | O_CREAT:
        raise errnos.EINVAL("O_CREAT makes no directories")


async def _resolve(context: PathContext, dirfd: int, path: str, follow: bool, resolve_flags: int) -> Location:
    return await resolve(context, dirfd, path, follow, resolve_flags=resolve_flags)


async def _open_path_only(context: PathContext, dirfd: int, path: str, flags: int, resolve_flags: int) -> File:
    location = await _resolve(context, dirfd, path, not flags & O_NOFOLLOW, resolve_flags)
    inode = inode_at(location)
    if flags & O_DIRECTORY and not inode.is_directory:
        raise errnos.ENOTDIR("not a directory")
    return PathFile(inode, flags & ~O_CLOEXEC, location)


async def _open_unnamed(context: PathContext, dirfd: int, path: str, flags: int, mode: int, resolve_flags: int) -> File:
    location = await _resolve(context, dirfd, path, not flags & O_NOFOLLOW, resolve_flags)
    directory = inode_at(location)
    if not directory.is_directory:
        raise errnos.ENOTDIR("O_TMPFILE needs a directory")
    check_writable_mount(location)
    check_create(context.credentials, directory)
    mode, gid = mode_for_new(context.credentials, directory, S_IFREG | mode & 0o7777 & ~context.fs.umask)
    inode = await directory.create_unnamed(mode & 0o7777, Owner(context.credentials.fsuid, gid))
    inode.is_linkable = not flags & O_EXCL
    dentry = Dentry(f"#{inode.ino}", location.dentry, inode)
    dentry.unlinked = True
    return await _finish(context, Location(location.mount, dentry), flags)


async def _find_or_create(context: PathContext, dirfd: int, path: str, flags: int, mode: int,
                          resolve_flags: int) -> _Found:
    if not path:
        raise errnos.ENOENT("an empty path")
    cached = None if resolve_flags else parent_cached(context, dirfd, path)
    if cached is not None:
        parent, name = cached
        child = await lookup(parent.dentry, name)
        if child.inode is None:
            created = await _create(context, parent, name, mode)
            if created is not None:
                return _Found(Location(parent.mount, created), True, False)
        elif child.inode.kind != S_IFLNK and not child.mounts:
            return _Found(Location(parent.mount, child), False, False)
    walker = Walker(context, dirfd, path, resolve_flags)
    while True:
        name = await walker.to_parent()
        if name in ("", "."):
            return _Found(walker.location, False, walker.trailing_slash)
        if name == "..":
            walker.go_up()
            return _Found(walker.location, False, walker.trailing_slash)
        if walker.trailing_slash:
            raise errnos.EISDIR("a path that ends in a slash names no file")
        child = await walker.child(name)
        if child.inode is None:
            created = await _create(context, walker.location, name, mode)
            if created is not None:
                return _Found(Location(walker.location.mount, created), True, False)
            child = await walker.child(name)  # somebody was faster
            if child.inode is None:
                raise errnos.ENOENT(f"{name!r} comes and goes")
        below = walker.enter(child)
        if inode_at(below).kind != S_IFLNK or flags & (O_EXCL | O_NOFOLLOW):
            return _Found(below, False, False)
        await walker.follow(below)


async def _create(context: PathContext, parent: Location, name: str, mode: int) -> Dentry | None:
    """Makes a regular file; ``None`` if the name was taken meanwhile."""
    directory = inode_at(parent)
    check_writable_mount(parent)
    check_create(context.credentials, directory)
    if parent.dentry.unlinked:
        raise errnos.ENOENT("the directory was removed")
    mode, gid = mode_for_new(context.credentials, directory, S_IFREG | mode & ~context.fs.umask)
    async with directory.filesystem.changes:
        try:
            inode = await directory.create(name, mode & 0o7777, Owner(context.credentials.fsuid, gid))
        except errnos.EEXIST:
            forget(parent.dentry, name)
            return None
        dentry = instantiate(parent.dentry, name, inode)
    notify_name(parent.dentry, name, IN_CREATE, is_directory=False)
    return dentry


def instantiate(directory: Dentry, name: str, inode: Inode) -> Dentry:
    """Caches a name that has just been made."""
    dentry = directory.children.get(name)
    if dentry is None or dentry.inode is not None:
        dentry = directory.children[name] = Dentry(name, directory, inode)
    else:
        dentry.inode = inode
        directory.negatives -= 1
    return dentry


def forget(directory: Dentry, name: str) -> None:
    """Drops what is cached for a name, if it is an absence."""
    child = directory.children.get(name)
    if child is not None and child.inode is None:
        del directory.children[name]
        directory.negatives -= 1


async def _open_found(context: PathContext, found: _Found, flags: int) -> File:
    location = found.location
    inode = inode_at(location)
    if flags & O_CREAT and not found.is_new:
        if flags & O_EXCL:
            raise errnos.EEXIST("exists")
        if inode.is_directory:
            raise errnos.EISDIR("is a directory")
    if (flags & O_DIRECTORY or found.needs_directory) and not inode.is_directory:
        raise errnos.ENOTDIR("not a directory")
    if not found.is_new:
        _check_open(context, location, inode, flags)
        if flags & O_ACCMODE != O_RDONLY or flags & O_TRUNC:
            check_not_executed(inode)
        if flags & O_TRUNC and inode.kind == S_IFREG:
            change = AttributeChange(size=0, mode=mode_after_write(context.credentials, inode))
            await inode.set_attributes(change)
            notify(location.dentry, IN_MODIFY)
    return await _finish(context, location, flags)


def _check_open(context: PathContext, location: Location, inode: Inode, flags: int) -> None:
    """Linux's ``may_open``."""
    wanted = _ACCESS[flags & O_ACCMODE]
    kind = inode.kind
    if flags & O_TRUNC:
        wanted |= MAY_WRITE
        if kind == S_IFREG:
            check_writable_mount(location)
    if kind == S_IFLNK:
        raise errnos.ELOOP("a symbolic link")
    if kind == S_IFDIR and wanted & MAY_WRITE:
        raise errnos.EISDIR("directories are not opened for writing")
    if kind in (S_IFCHR, S_IFBLK) and location.mount.flags & MS_NODEV:
        raise errnos.EACCES("devices cannot be opened on this mount")
    check_access(context.credentials, inode, wanted)
    if flags & O_NOATIME and not is_owner(context.credentials, inode):
        raise errnos.EPERM("O_NOATIME is for the owner")
    if wanted & MAY_WRITE and kind in (S_IFREG, S_IFDIR):
        check_writable_mount(location)


async def _finish(context: PathContext, location: Location, flags: int) -> File:
    inode = inode_at(location)
    counts = flags & O_ACCMODE != O_RDONLY and begin_write(inode)
    try:
        file = await inode.open(flags & ~_NOT_KEPT, location, context)
    except BaseException:
        inode.writers -= counts
        raise
    file.write_share = int(counts)
    file.flags &= ~O_NOCTTY
    notify(location.dentry, IN_OPEN)
    return file
