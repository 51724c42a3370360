"""An in-memory layer over a file system that does not change: overlayfs' rules, without its trees on disk.

Every inode here keeps its own attributes from the start, so chmod(2) or rename(2) of a lower file, or of a
whole lower directory, copies nothing: a directory records which names it decides itself, a file its new owner.
Only content is copied up, when it is first opened for writing; after that the file lives in the upper tmpfs'
memory. Inode numbers stay what they were below. An inode that differs from its lower one is held by
:attr:`OverlayFileSystem.changed`; others may be forgotten and found again. Unlike Linux's, files opened for
reading before a copy-up see what is written after it. See Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from asyncsentry import errnos
from asyncsentry.abi.stat_h import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from asyncsentry.fs.content import Content
from asyncsentry.fs.directory import DirectoryFile
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import DirectoryEntry, FileSystem, Inode, Owner, StatFs
from asyncsentry.fs.overlayinode import OverlayInode, OverlayRegular, OverlaySymlink
from asyncsentry.fs.tmpfs import TmpFileSystem

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location

__all__ = ["OverlayDirectory", "OverlayFileSystem", "OverlayInode", "OverlayRegular", "OverlaySymlink"]

OVERLAYFS_MAGIC = 0x794C7630
_ABSENT_KEPT = 1024


class OverlayFileSystem(FileSystem):
    """``lower`` as it was, with every change kept in memory that ``upper`` accounts for."""

    name = "overlay"

    def __init__(self, device: int, lower: FileSystem, upper: TmpFileSystem) -> None:
        super().__init__(device)
        self.lower = lower
        self.upper = upper
        self.changed: set[OverlayInode] = set()
        """Inodes that stand for a lower file but differ from it."""
        self._by_lower: WeakValueDictionary[Inode, OverlayInode] = WeakValueDictionary()
        self.root: OverlayInode = self.from_lower(lower.root)

    def from_lower(self, lower: Inode) -> OverlayInode:
        """Gives the one inode that stands for a lower one, whichever of its names led there."""
        inode = self._by_lower.get(lower)
        if inode is None:
            make = {S_IFDIR: OverlayDirectory, S_IFREG: OverlayRegular, S_IFLNK: OverlaySymlink}
            inode = make.get(lower.kind, OverlayInode)(self, lower.mode, Owner(lower.uid, lower.gid), lower)
            self._by_lower[lower] = inode
        return inode

    def now_ns(self) -> int:
        """Gives the time for time stamps."""
        return self.upper.now_ns()

    def statfs(self) -> StatFs:
        """Gives the upper layer's sizes, or the machine's memory if it has none: there is where there is room."""
        answer = self.upper.statfs()
        answer.magic = OVERLAYFS_MAGIC
        if not answer.blocks:  # apt and others refuse to work where statfs(2) shows no room
            answer.blocks = os.sysconf("SC_PHYS_PAGES")
            answer.blocks_free = answer.blocks_available = os.sysconf("SC_AVPHYS_PAGES")
        return answer

    async def release(self) -> None:
        """Lets go of both layers."""
        self.changed.clear()
        await self.lower.release()
        await self.upper.release()


class OverlayDirectory(OverlayInode):
    """A directory: the names it decides itself, over those of the lower directory if it merges one."""

    def __init__(self, filesystem: OverlayFileSystem, mode: int, owner: Owner, lower: Inode | None = None,
                 rdev: int = 0) -> None:
        super().__init__(filesystem, mode, owner, lower, rdev)
        if lower is None:
            self.nlink = 2
        self.names: dict[str, OverlayInode | None] = {}
        """What stands for a name here; ``None`` is a whiteout: the lower name is gone."""
        self._covers: set[str] = set()
        """Names in :attr:`names` that the lower directory has too."""
        self._absent: set[str] = set()
        """Names the lower directory is known not to have."""
        self._listing: list[DirectoryEntry] | None = None

    def _extent(self) -> tuple[int, int]:
        return super()._extent() if self.lower is not None else (4096, 8)

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens it for listing."""
        return DirectoryFile(self, flags, location)

    # Finding -------------------------------------------------------------------------------------

    async def lookup(self, name: str) -> Inode:
        """Finds a name, here or below."""
        inode = self.names[name] if name in self.names else await self._lookup_below(name)
        if inode is None:
            raise errnos.ENOENT(f"no {name!r}")
        return inode

    async def _lookup_below(self, name: str) -> OverlayInode | None:
        if self.lower is None or name in self._absent:
            return None
        try:
            lower = await self.lower.lookup(name)
        except errnos.ENOENT:
            self._note_absent(name)
            return None
        return self.names[name] if name in self.names else self.filesystem.from_lower(lower)

    def _note_absent(self, name: str) -> None:
        if len(self._absent) >= _ABSENT_KEPT:
            self._absent.clear()
        self._absent.add(name)

    async def lookup_path(self, names: Sequence[str]) -> list[Inode | None]:
        """Finds a chain of names, asking the lower layer for all it must know at once."""
        found: list[Inode | None] = []
        current: Inode | None = self
        while len(found) < len(names) and isinstance(current, OverlayDirectory):
            rest = names[len(found):]
            if rest[0] in current.names or current.lower is None or rest[0] in current._absent:
                current = current.names.get(rest[0])
                found.append(current)
            else:
                chain = await current.lower.lookup_path(rest)
                current = current._take_chain(rest, chain, found)
        return found

    def _take_chain(self, names: Sequence[str], chain: list[Inode | None], found: list[Inode | None]) -> Inode | None:
        """Adds a chain of lower inodes to ``found``; gives the directory on the way that decides otherwise."""
        current: OverlayInode = self
        for name, lower in zip(names, chain, strict=False):
            if not isinstance(current, OverlayDirectory) or name in current.names:
                return current
            if lower is None:
                current._note_absent(name)
                found.append(None)
                return None
            current = self.filesystem.from_lower(lower)
            found.append(current)
        return None

    async def entries(self) -> list[DirectoryEntry]:
        """Lists the lower names not decided here, then those that are."""
        if self._listing is not None:
            return self._listing
        below = await self.lower.entries() if self.lower is not None else []
        if not self.names:
            return below
        listing = [entry for entry in below if entry.name not in self.names]
        listing += [DirectoryEntry(name, inode.ino, inode.mode >> 12) for name, inode in self.names.items() if inode]
        self._listing = listing
        return listing

    # Changing ------------------------------------------------------------------------------------

    async def create(self, name: str, mode: int, owner: Owner) -> Inode:
        """Makes a regular file."""
        return await self._add(name, self._new_regular(mode, owner))

    async def create_unnamed(self, mode: int, owner: Owner) -> Inode:
        """Makes a regular file without a name."""
        inode = self._new_regular(mode, owner)
        inode.nlink = 0
        return inode

    def _new_regular(self, mode: int, owner: Owner) -> OverlayInode:
        inode = OverlayRegular(self.filesystem, S_IFREG | mode, owner)
        inode.content = Content(self.filesystem.upper.budget)
        return inode

    async def mkdir(self, name: str, mode: int, owner: Owner) -> Inode:
        """Makes a directory, which merges nothing even if the lower layer has one of its name."""
        return await self._add(name, OverlayDirectory(self.filesystem, S_IFDIR | mode, owner))

    async def symlink(self, name: str, target: str, owner: Owner) -> Inode:
        """Makes a symbolic link."""
        inode = OverlaySymlink(self.filesystem, S_IFLNK | 0o777, owner)
        inode.target = target
        return await self._add(name, inode)

    async def mknod(self, name: str, mode: int, device: int, owner: Owner) -> Inode:
        """Makes a FIFO, a socket's name or a device node."""
        if mode & S_IFMT == S_IFREG:
            return await self.create(name, mode & 0o7777, owner)
        return await self._add(name, OverlayInode(self.filesystem, mode, owner, rdev=device))

    async def _add(self, name: str, inode: OverlayInode) -> OverlayInode:
        known = self.names[name] if name in self.names else await self._lookup_below(name)
        if known is not None:
            raise errnos.EEXIST(f"{name!r} exists")
        self._put(name, inode)
        return inode

    async def link(self, name: str, target: Inode) -> None:
        """Gives a file one more name; a lower file stays one inode with its other names."""
        assert isinstance(target, OverlayInode)
        await self._add(name, target)
        target.nlink += 1
        target.touch()

    async def unlink(self, name: str, victim: Inode) -> None:
        """Takes a name away, leaving a whiteout if the lower layer has it."""
        assert isinstance(victim, OverlayInode)
        self._take(name, victim)
        victim.drop_link()

    async def rmdir(self, name: str, victim: Inode) -> None:
        """Removes a directory that is empty as the layers show it together."""
        assert isinstance(victim, OverlayDirectory)
        if await victim.entries():
            raise errnos.ENOTEMPTY(f"{name!r} is not empty")
        self._take(name, victim)
        victim.drop_link()

    async def rename(self, name: str, moved: Inode, parent: Inode, new_name: str, replaced: Inode | None,
                     exchange: bool) -> None:
        """Moves a name; a lower directory moves with all that is below it, since only names are recorded."""
        assert isinstance(moved, OverlayInode)
        assert isinstance(parent, OverlayDirectory)
        if isinstance(replaced, OverlayDirectory) and not exchange and await replaced.entries():
            raise errnos.ENOTEMPTY(f"{new_name!r} is not empty")
        if replaced is not None:
            assert isinstance(replaced, OverlayInode)
            parent._take(new_name, replaced)
        self._take(name, moved)
        parent._put(new_name, moved)
        moved.touch()
        if replaced is not None and exchange:
            self._put(name, replaced)
            replaced.touch()
        elif replaced is not None:
            replaced.drop_link()

    def _put(self, name: str, inode: OverlayInode) -> None:
        """Lets a name, not taken now, stand for ``inode``."""
        self.names[name] = inode
        if inode.is_directory:
            self.nlink += 1
        self._listing = None
        self.changed()

    def _take(self, name: str, inode: OverlayInode) -> None:
        """Removes a name that stands for ``inode``."""
        if name in self.names:
            if self.names[name] is not inode:
                raise errnos.ENOENT(f"{name!r} is gone")
        else:
            self._covers.add(name)
        if name in self._covers:
            self.names[name] = None
        else:
            del self.names[name]
            self._note_absent(name)
        if inode.is_directory:
            self.nlink -= 1
        self._listing = None
        self.changed()
