"""Files of an overlay that are no directories: attributes of their own, content of either layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import O_NOATIME
from asyncsentry.fs.content import Content
from asyncsentry.fs.copyup import LowerFile, copy_content
from asyncsentry.fs.devices import open_special
from asyncsentry.fs.file import O_ACCMODE, O_RDONLY, File
from asyncsentry.fs.inode import AttributeChange, Inode, Owner, Stat
from asyncsentry.fs.memfile import TmpFile
from asyncsentry.fs.tmpfs import TmpRegular
from asyncsentry.fs.xattr import XattrStore

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.overlay import OverlayFileSystem

_UPPER_INO = 1 << 48
"""Inode numbers of files made here start above any a host gives out."""
_DAY_NS = 86_400_000_000_000


class OverlayInode(Inode):
    """A file of either layer: its own attributes and times, and the lower file while it needs it."""

    filesystem: OverlayFileSystem
    content: Content | None = None
    _is_counted = False

    def __init__(self, filesystem: OverlayFileSystem, mode: int, owner: Owner, lower: Inode | None = None,
                 rdev: int = 0) -> None:
        ino = lower.ino if lower is not None else _UPPER_INO + filesystem.upper.new_ino()
        super().__init__(filesystem, ino, mode, owner.uid, owner.gid)
        self._is_counted = lower is None
        self.lower = lower
        self.rdev = rdev
        self._lower_extent = (0, 0)
        self._xattrs: XattrStore | None = None
        """``None`` while they are the lower file's."""
        if lower is None:
            self.atime_ns = self.mtime_ns = self.ctime_ns = self.btime_ns = filesystem.now_ns()
        else:
            was = lower.stat()
            self._lower_extent = was.size, was.blocks
            self.nlink, self.rdev = was.nlink, was.rdev
            self.atime_ns, self.mtime_ns, self.ctime_ns = was.atime_ns, was.mtime_ns, was.ctime_ns
            self.btime_ns = was.btime_ns

    def __del__(self) -> None:
        if self._is_counted:
            self.filesystem.upper.inode_count -= 1

    # Attributes ----------------------------------------------------------------------------------

    def stat(self) -> Stat:
        """Gives the attributes."""
        size, blocks = self._extent()
        return Stat(
            self.filesystem.device, self.ino, self.mode, self.nlink, self.uid, self.gid, self.rdev, size, blocks, 4096,
            self.atime_ns, self.mtime_ns, self.ctime_ns, self.btime_ns,
        )  # fmt: skip

    def _extent(self) -> tuple[int, int]:
        """Gives size and blocks."""
        return self._lower_extent

    async def set_attributes(self, change: AttributeChange) -> None:
        """Changes attributes; a new size copies up what it leaves of the content."""
        if change.size is not None:
            await self._set_size(change.size)
        self.mode = self.kind | (self.mode & 0o7777 if change.mode is None else change.mode)
        self.uid = self.uid if change.uid is None else change.uid
        self.gid = self.gid if change.gid is None else change.gid
        self.touch()
        self.atime_ns = self.atime_ns if change.atime_ns is None else change.atime_ns
        self.mtime_ns = self.mtime_ns if change.mtime_ns is None else change.mtime_ns

    async def _set_size(self, size: int) -> None:
        raise errnos.EINVAL("only regular files have a size to set")

    def touch(self) -> None:
        """Stamps a change of attributes, and remembers that the inode differs from its lower one."""
        self.ctime_ns = self.filesystem.now_ns()
        if self.lower is not None and self.nlink:
            self.filesystem.changed.add(self)

    def changed(self) -> None:
        """Stamps a change of content."""
        self.touch()
        self.mtime_ns = self.ctime_ns

    def accessed(self) -> None:
        """Stamps a reading, by the rules of relatime, mount(8)."""
        now_ns = self.filesystem.now_ns()
        if self.atime_ns <= self.mtime_ns or self.atime_ns <= self.ctime_ns or now_ns - self.atime_ns > _DAY_NS:
            self.atime_ns = now_ns

    def drop_link(self) -> None:
        """Counts one name less; the last one lets the layer forget the file."""
        self.nlink = 0 if self.is_directory else max(0, self.nlink - 1)
        self.touch()
        if not self.nlink:
            self.filesystem.changed.discard(self)

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens a FIFO or a device node; other kinds override this."""
        return await open_special(self, flags, location, context)

    # Extended attributes -------------------------------------------------------------------------

    async def get_xattr(self, name: str) -> bytes:
        """Gives an attribute's value."""
        if self._xattrs is None and self.lower is not None:
            return await self.lower.get_xattr(name)
        return (self._xattrs or XattrStore()).get(name)

    async def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """Sets an attribute."""
        (await self._own_xattrs()).set(name, value, flags)
        self.touch()

    async def remove_xattr(self, name: str) -> None:
        """Removes an attribute."""
        (await self._own_xattrs()).remove(name)
        self.touch()

    async def list_xattrs(self) -> list[str]:
        """Lists the names."""
        if self._xattrs is None and self.lower is not None:
            return await self.lower.list_xattrs()
        return self._xattrs.names() if self._xattrs is not None else []

    async def _own_xattrs(self) -> XattrStore:
        if self._xattrs is None:
            store = XattrStore()
            if self.lower is not None:
                for name in await self.lower.list_xattrs():
                    store.set(name, await self.lower.get_xattr(name), 0)
            self._xattrs = self._xattrs or store
        return self._xattrs


class OverlaySymlink(OverlayInode):
    """A symbolic link; ``target`` is ``None`` for one of the lower layer."""

    target: str | None = None

    def _extent(self) -> tuple[int, int]:
        return super()._extent() if self.target is None else (len(self.target.encode(errors="surrogateescape")), 0)

    async def readlink(self) -> str:
        """Gives the target's text."""
        if self.target is not None:
            return self.target
        assert self.lower is not None
        return await self.lower.readlink()


class OverlayRegular(OverlayInode):
    """A regular file: ``content`` is what was made or copied up here, ``None`` while it is the lower file's."""

    def _extent(self) -> tuple[int, int]:
        content = self.content
        return super()._extent() if content is None else (content.size, content.blocks)

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens it, copying it up first if it may be written."""
        if self.content is None and flags & O_ACCMODE == O_RDONLY:
            assert self.lower is not None
            return LowerFile(self, flags, location, await self.lower.open(O_RDONLY | O_NOATIME, location, context))
        await self.copy_up()
        # A TmpFile asks an inode for content, mode, accessed and changed, and this one has them.
        return TmpFile(cast(TmpRegular, self), flags, location, getattr(context, "credentials", None))

    async def copy_up(self, size_limit: int | None = None) -> None:
        """Makes the content ours: all of it, or no more than ``size_limit`` bytes."""
        if self.content is not None:
            return
        assert self.lower is not None
        content = await copy_content(self.lower, self.filesystem.upper.budget, size_limit)
        if self.content is None:  # else somebody was quicker, and may have written by now
            self.content = content
            if self.nlink:
                self.filesystem.changed.add(self)

    async def _set_size(self, size: int) -> None:
        await self.copy_up(size)
        assert self.content is not None
        self.content.truncate(size)
        self.changed()
