"""Telling watchers of changes, inotify(7): the virtual file system calls these where Linux calls fsnotify.

A watch sits on an inode (``Inode.watches``); with none, a call costs two attribute tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Dentry
    from asyncsentry.fs.file import File

IN_ACCESS = 0x001
IN_MODIFY = 0x002
IN_ATTRIB = 0x004
IN_CLOSE_WRITE = 0x008
IN_CLOSE_NOWRITE = 0x010
IN_OPEN = 0x020
IN_MOVED_FROM = 0x040
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_ISDIR = 0x40000000


def notify(dentry: Dentry, mask: int) -> None:
    """Reports an event of a file itself (IN_OPEN, IN_ATTRIB, …) to its watchers and its directory's."""
    inode, parent = dentry.inode, dentry.parent
    assert inode is not None
    if parent is not None and parent.inode is not None and parent.inode.watches is not None:
        mask_for_parent = mask | (IN_ISDIR if inode.is_directory else 0)
        parent.inode.watches.notify(mask_for_parent, dentry.name, 0, dentry.unlinked)
    if inode.watches is not None:
        inode.watches.notify(mask | (IN_ISDIR if inode.is_directory else 0), "", 0)


def notify_name(directory: Dentry, name: str, mask: int, is_directory: bool, cookie: int = 0) -> None:
    """Reports a change of a directory's names (IN_CREATE, IN_DELETE, IN_MOVED_*) to the directory's watchers."""
    inode = directory.inode
    if inode is not None and inode.watches is not None:
        inode.watches.notify(mask | (IN_ISDIR if is_directory else 0), name, cookie)


def notify_self(dentry: Dentry, mask: int) -> None:
    """Reports an event only its own watchers see (IN_DELETE_SELF, IN_MOVE_SELF)."""
    inode = dentry.inode
    if inode is not None and inode.watches is not None:
        inode.watches.notify(mask, "", 0)


def notify_file(file: File, mask: int) -> None:
    """Reports an event made through an open file (IN_ACCESS, IN_MODIFY, IN_CLOSE_*)."""
    if file.location is not None and file.location.dentry.inode is not None:
        notify(file.location.dentry, mask)
