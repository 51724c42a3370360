"""The dentry cache: looking names up through it, remembering what is not there, and keeping it small.

A guest that walks a large tree must not make us remember all of it. When a file system has gathered many dentries,
those that nobody refers to are dropped, leaves first; a later walk asks the file system again. "Nobody" is told by
the reference count: a dentry that an open file, a working directory, a mount or a walk under way still holds must
stay the only one of its name, or a removal would be noticed by one holder and not by the other.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.fs.dentry import Dentry

if TYPE_CHECKING:
    from asyncsentry.fs.inode import FileSystem, Inode

NAME_MAX = 255
_NEGATIVES_KEPT = 256
EXCLUSIVE_MAX = 50_000
"""Dentries kept where they save a trip."""
SHARED_MAX = 2_000
"""Dentries kept in file systems that are asked again anyway (proc, shared mounts)."""
_ONLY_CACHED = 3
"""References to a dentry nobody holds: its directory's dict, our variable, and the argument of getrefcount."""


# Lookups ------------------------------------------------------------------------------------------


async def lookup(directory: Dentry, name: str) -> Dentry:
    """Gives the dentry of a name, perhaps a negative one, asking the file system if it is not cached."""
    inode = directory.inode
    assert inode is not None
    child = directory.children.get(name)
    if child is not None and (inode.filesystem.exclusive or child.mounts):
        return child
    check_name(name)
    if directory.unlinked:
        return Dentry(name, directory, None)
    try:
        found: Inode | None = await inode.lookup(name)
    except errnos.ENOENT:
        found = None
    return _cache(directory, name, found)


async def lookup_chain(directory: Dentry, names: list[str]) -> list[Dentry]:
    """Looks up names each in the one before, in as few trips as the file system can; at least the first."""
    inode = directory.inode
    assert inode is not None
    check_name(names[0])
    if directory.unlinked:
        return [Dentry(names[0], directory, None)]
    chain: list[Dentry] = []
    for name, found in zip(names, await inode.lookup_path(names), strict=False):
        child = _cache(directory, name, found)
        chain.append(child)
        if found is None or child.inode is not found:
            break
        directory = child
    return chain


def _cache(directory: Dentry, name: str, found: Inode | None) -> Dentry:
    """Enters the answer to a lookup into the cache; gives the dentry that counts."""
    inode = directory.inode
    assert inode is not None
    exclusive = inode.filesystem.exclusive
    # Somebody may have changed the name while we asked; what is cached by now is newer than our answer.
    child = directory.children.get(name)
    if child is not None and (exclusive or child.mounts or child.inode is found):
        return child
    if child is not None:
        child.unlinked = True
        del directory.children[name]
    fresh = Dentry(name, directory, found)
    if found is not None:
        directory.children[name] = fresh
        entered(inode.filesystem)
    elif exclusive:
        remember_absence(directory, fresh)
    return fresh


def remember_absence(directory: Dentry, negative: Dentry) -> None:
    """Caches a negative dentry, dropping old ones when a directory has gathered too many."""
    children = directory.children
    if directory.negatives > _NEGATIVES_KEPT + len(children) // 2:
        for name in [name for name, child in children.items() if child.inode is None]:
            del children[name]
        directory.negatives = 0
    children[negative.name] = negative
    directory.negatives += 1


def check_name(name: str) -> None:
    """Raises ENAMETOOLONG for a component over 255 bytes."""
    if len(name) > NAME_MAX or (not name.isascii() and len(os.fsencode(name)) > NAME_MAX):
        raise errnos.ENAMETOOLONG("a component is longer than 255 bytes")


# Making room --------------------------------------------------------------------------------------


def entered(filesystem: FileSystem) -> None:
    """Counts one more cached dentry, and makes room when there are too many."""
    filesystem.cached += 1
    if filesystem.cached <= SHARED_MAX or filesystem.cached <= filesystem.cached_kept * 2:
        return
    if filesystem.exclusive and filesystem.cached <= EXCLUSIVE_MAX:
        return
    filesystem.cached = filesystem.cached_kept = prune(filesystem.root_dentry)


def prune(root: Dentry) -> int:
    """Drops every dentry below ``root`` that nobody holds; gives how many stay."""
    order = [root]
    for dentry in order:
        order.extend(dentry.children.values())
    kept = 0
    del dentry
    while len(order) > 1:
        dentry = order.pop()
        parent = dentry.parent
        if (
            dentry.children
            or dentry.mounts
            or parent is None
            or sys.getrefcount(dentry) > _ONLY_CACHED
            or (dentry.inode is not None and _is_pinned(dentry.inode))
        ):
            kept += 1
            continue
        del parent.children[dentry.name]
        parent.negatives -= dentry.inode is None
    return kept


def _is_pinned(inode: Inode) -> bool:
    """Whether something hangs from the inode that a fresh one would lack."""
    return (
        inode.locks is not None
        or inode.watches is not None
        or inode.pipe is not None
        or inode.bound_socket is not None
        or inode.is_linkable
    )
