"""Dentries: the cache of names, and locations: a dentry seen through a mount.

A dentry is one name in one directory of one file system. A *negative* dentry (``inode is None``)
remembers that a name does not exist. In file systems that only the sandbox changes
(``FileSystem.exclusive``) the cache is always right, so a cached walk needs no await.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from asyncsentry.fs.inode import Inode
    from asyncsentry.fs.mount import Mount


class Dentry:
    """A name in a directory, what it stands for, and the cached names below it."""

    __slots__ = ("children", "inode", "mounts", "name", "negatives", "parent", "unlinked")

    def __init__(self, name: str, parent: Dentry | None, inode: Inode | None) -> None:
        self.name = name
        self.parent = parent
        """``None`` for the root of a file system, and for files that never had a name."""
        self.inode = inode
        self.children: dict[str, Dentry] = {}
        self.negatives = 0
        """About how many of the children are negative; bounds what a guest can make us remember."""
        self.mounts = 0
        """How many mounts, in any namespace, sit on top of this dentry."""
        self.unlinked = False
        """Whether the name was removed while someone still holds it; shown as ``(deleted)``."""


class Location(NamedTuple):
    """A place in the tree of mounts: what a path walk arrives at. Linux's ``struct path``."""

    mount: Mount
    dentry: Dentry
