"""rename(2) and renameat2(2): moving names, replacing what stands there, or exchanging two.

Checks come in the order of Linux's ``do_renameat2`` and ``vfs_rename``.
"""

from __future__ import annotations

from typing import NamedTuple

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
from asyncsentry.fs.access import MAY_WRITE, check_access, check_create, check_delete, check_writable_mount
from asyncsentry.fs.dcache import check_name, lookup, remember_absence
from asyncsentry.fs.dentry import Dentry
from asyncsentry.fs.inode import Inode
from asyncsentry.fs.names import disappear
from asyncsentry.fs.notify import (
    IN_ATTRIB,
    IN_DELETE_SELF,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    notify_name,
    notify_self,
)
from asyncsentry.fs.path import Parent, PathContext, walk_parent
from asyncsentry.fs.vfs import inode_at


class _Move(NamedTuple):
    """A rename whose two ends are found."""

    source: Parent
    target: Parent
    moved: Dentry
    replaced: Dentry
    """Negative when nothing is in the way."""
    exchange: bool


async def rename(context: PathContext, old_dirfd: int, old_path: str, new_dirfd: int, new_path: str,
                 flags: int = 0) -> None:
    """Gives a file another name, in the same directory or another."""
    check_flags(flags)
    source = await walk_parent(context, old_dirfd, old_path)
    target = await walk_parent(context, new_dirfd, new_path)
    if source.location.mount is not target.location.mount:
        raise errnos.EXDEV("another mount")
    if not source.is_ordinary:
        raise errnos.EBUSY("the old path names a directory by its dots")
    if not target.is_ordinary:
        raise errnos.EEXIST("exists") if flags & RENAME_NOREPLACE else errnos.EBUSY("the new path ends in dots")
    check_writable_mount(source.location)
    async with inode_at(source.location).filesystem.changes:
        move = await _find(source, target, flags)
        if move.moved.inode is move.replaced.inode:
            return  # two names of one file: nothing to do, rename(2)
        _check(context, move)
        await _carry_out(move)
    _announce(move)


def check_flags(flags: int) -> None:
    """Raises EINVAL for flags renameat2(2) does not know or that exclude each other."""
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        raise errnos.EINVAL("unknown flags")
    if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
        raise errnos.EINVAL("RENAME_EXCHANGE stands alone")
    if flags & RENAME_WHITEOUT:
        raise errnos.EINVAL("no whiteouts for guests")


async def _find(source: Parent, target: Parent, flags: int) -> _Move:
    check_name(source.name)
    moved = await lookup(source.location.dentry, source.name)
    if moved.inode is None:
        raise errnos.ENOENT(f"no {source.name!r}")
    replaced = await lookup(target.location.dentry, target.name)
    exchange = bool(flags & RENAME_EXCHANGE)
    if replaced.inode is not None and flags & RENAME_NOREPLACE:
        raise errnos.EEXIST(f"{target.name!r} exists")
    if replaced.inode is None and exchange:
        raise errnos.ENOENT(f"no {target.name!r} to exchange with")
    if exchange and target.trailing_slash and not _is_directory(replaced):
        raise errnos.ENOTDIR("not a directory")
    if not moved.inode.is_directory and (source.trailing_slash or (target.trailing_slash and not exchange)):
        raise errnos.ENOTDIR("not a directory")
    if _is_ancestor(moved, target.location.dentry):
        raise errnos.EINVAL("a directory cannot be moved below itself")
    if _is_ancestor(replaced, source.location.dentry):
        raise errnos.EINVAL("a parent cannot be moved below its child") if exchange else errnos.ENOTEMPTY("a parent")
    return _Move(source, target, moved, replaced, exchange)


def _check(context: PathContext, move: _Move) -> None:
    credentials = context.credentials
    old_directory, new_directory = inode_at(move.source.location), inode_at(move.target.location)
    moved, replaced = move.moved.inode, move.replaced.inode
    assert moved is not None
    check_delete(credentials, old_directory, moved, moved.is_directory)
    if replaced is None:
        if move.target.location.dentry.unlinked:
            raise errnos.ENOENT("the new directory was removed")
        check_create(credentials, new_directory)
    else:
        check_delete(credentials, new_directory, replaced,
                     replaced.is_directory if move.exchange else moved.is_directory)
    if old_directory is not new_directory:  # its ".." changes
        for inode in (moved, replaced if move.exchange else None):
            if inode is not None and inode.is_directory:
                check_access(credentials, inode, MAY_WRITE)
    if move.moved.mounts or move.replaced.mounts:
        raise errnos.EBUSY("a mount point")


async def _carry_out(move: _Move) -> None:
    old, new = move.source.location.dentry, move.target.location.dentry
    moved, replaced = move.moved, move.replaced
    assert moved.inode is not None
    await inode_at(move.source.location).rename(
        move.source.name, moved.inode, inode_at(move.target.location), move.target.name, replaced.inode, move.exchange)
    if replaced.inode is None:
        if new.children.pop(move.target.name, None) is not None:
            new.negatives -= 1
    elif not move.exchange:
        disappear(replaced)
        if new.children.pop(move.target.name, None) is not None:
            new.negatives -= 1
    old.children.pop(move.source.name, None)
    _place(moved, new, move.target.name)
    if move.exchange:
        _place(replaced, old, move.source.name)
    elif moved.inode.filesystem.exclusive:
        remember_absence(old, Dentry(move.source.name, old, None))


def _place(dentry: Dentry, directory: Dentry, name: str) -> None:
    dentry.name, dentry.parent = name, directory
    directory.children[name] = dentry


def _announce(move: _Move) -> None:
    old, new = move.source.location.dentry, move.target.location.dentry
    is_directory, cookie = _is_directory(move.moved), next_cookie(move.moved.inode)
    notify_name(old, move.source.name, IN_MOVED_FROM, is_directory, cookie)
    notify_name(new, move.target.name, IN_MOVED_TO, is_directory, cookie)
    notify_self(move.moved, IN_MOVE_SELF)
    replaced = move.replaced.inode
    if replaced is not None and not move.exchange:
        notify_self(move.replaced, IN_ATTRIB if replaced.nlink else IN_DELETE_SELF)


def next_cookie(inode: Inode | None) -> int:
    """Gives a number that ties the two halves of one rename together, inotify(7)."""
    if inode is None:
        return 0
    filesystem = inode.filesystem
    filesystem.renames += 1
    return (filesystem.device << 20 ^ filesystem.renames) & 0xFFFFFFFF or 1


def _is_directory(dentry: Dentry) -> bool:
    return dentry.inode is not None and dentry.inode.is_directory


def _is_ancestor(dentry: Dentry, below: Dentry) -> bool:
    at: Dentry | None = below
    while at is not None:
        if at is dentry:
            return True
        at = at.parent
    return False
