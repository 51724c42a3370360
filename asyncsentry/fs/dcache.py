"""Keeping the dentry cache small: a guest that walks a large tree must not make us remember all of it.

When a file system has gathered many dentries, those that nobody refers to are dropped, leaves first; a later
walk asks the file system again. "Nobody" is told by the reference count: a dentry that an open file, a working
directory, a mount or a walk under way still holds must stay the only one of its name, or a removal would be
noticed by one holder and not by the other.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Dentry
    from asyncsentry.fs.inode import FileSystem, Inode

EXCLUSIVE_MAX = 50_000
"""Dentries kept where they save a trip."""
SHARED_MAX = 2_000
"""Dentries kept in file systems that are asked again anyway (proc, shared mounts)."""
_ONLY_CACHED = 3
"""References to a dentry nobody holds: its directory's dict, our variable, and the argument of getrefcount."""


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
