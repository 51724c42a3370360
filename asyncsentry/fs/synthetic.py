"""Synthetic trees: directories and files that exist because the kernel says so (proc, sys, devpts).

A tree is made of a few kinds of inode: directories with fixed names, directories that work their names
out, files whose text is rendered when they are read, links. What renders a file is a plain function
and the object it tells about, never a closure, so a tree can be copied with the kernel it shows.
Text is rendered once per reading from the start, as Linux's seq_file does, so a reader in small pieces
sees one consistent text. See proc(5), sysfs(5).
"""

from __future__ import annotations

import stat as stat_bits
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from asyncsentry import errnos
from asyncsentry.clock import CLOCK_REALTIME, Clock
from asyncsentry.fs.file import SEEK_CUR, SEEK_END, SEEK_SET, File, check_position
from asyncsentry.fs.inode import AttributeChange, DirectoryEntry, FileSystem, Inode, Stat, StatFs

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location

Render = Callable[[Any], "str | bytes"]
"""Gives the whole text of a file, told what it is about."""
Store = Callable[[Any, bytes, Any], None]
"""Takes what was written: subject, bytes, the opening guest thread."""

WRITE_MAX = 1 << 20
"""More than this in one write to a synthetic file is refused; Linux stops at a page for most."""


class SyntheticFileSystem(FileSystem):
    """A mounted instance of a synthetic tree."""

    exclusive = False
    magic = 0

    def __init__(self, device: int, clock: Clock) -> None:
        super().__init__(device)
        self.clock = clock
        self.mount_time_ns = clock.now_ns(CLOCK_REALTIME)
        self._next_ino = 0

    def allocate_ino(self) -> int:
        """Gives an inode number not used before in this instance."""
        self._next_ino += 1
        return self._next_ino

    def statfs(self) -> StatFs:
        """Gives the magic number; a synthetic tree takes no space."""
        return StatFs(self.magic)


class SyntheticInode(Inode):
    """An inode with attributes but no content of its own."""

    filesystem: SyntheticFileSystem

    def __init__(self, filesystem: SyntheticFileSystem, mode: int, uid: int = 0, gid: int = 0) -> None:
        super().__init__(filesystem, filesystem.allocate_ino(), mode, uid, gid)
        self.time_ns = filesystem.mount_time_ns

    def stat(self) -> Stat:
        """Gives the attributes; synthetic files have no size and one time."""
        return Stat(
            dev=self.filesystem.device, ino=self.ino, mode=self.mode, nlink=self.nlink, uid=self.uid, gid=self.gid,
            rdev=self.rdev, size=self.size, blocks=0, blksize=1024, atime_ns=self.time_ns, mtime_ns=self.time_ns,
            ctime_ns=self.time_ns, btime_ns=0,
        )  # fmt: skip

    @property
    def size(self) -> int:
        """The size stat(2) shows: 0 for rendered text."""
        return 0

    async def set_attributes(self, change: AttributeChange) -> None:
        """Ignores truncation, as Linux does for ``> /proc/sys/...``; other changes are refused."""
        if change.mode is not None or change.uid is not None or change.gid is not None:
            raise errnos.EPERM("attributes of this file cannot be changed")


class Directory(SyntheticInode):
    """A directory of fixed names; subclasses override :meth:`find` and :meth:`items` to work names out."""

    def __init__(self, filesystem: SyntheticFileSystem, mode: int = 0o555, uid: int = 0, gid: int = 0) -> None:
        super().__init__(filesystem, stat_bits.S_IFDIR | mode, uid, gid)
        self.nlink = 2
        self.children: dict[str, Inode] = {}

    def add(self, name: str, inode: Inode) -> None:
        """Gives an inode a fixed name here."""
        self.children[name] = inode
        if inode.is_directory:
            self.nlink += 1

    def subdirectory(self, name: str, mode: int = 0o555) -> Directory:
        """Gives the fixed directory of that name, making it if needed."""
        found = self.children.get(name)
        if found is None:
            found = Directory(self.filesystem, mode)
            self.add(name, found)
        assert isinstance(found, Directory)
        return found

    def find(self, name: str) -> Inode | None:
        """Finds a name, or ``None``."""
        return self.children.get(name)

    def items(self) -> Iterable[tuple[str, Inode]]:
        """Lists names and inodes."""
        return self.children.items()

    def check_access(self, context: object) -> None:
        """Raises unless the guest thread ``context`` may list the directory, beyond its mode bits."""

    async def lookup(self, name: str) -> Inode:
        """Finds a name; ENOENT if it is not there."""
        found = self.find(name)
        if found is None:
            raise errnos.ENOENT(f"no {name!r} here")
        return found

    async def entries(self) -> list[DirectoryEntry]:
        """Lists all names."""
        return self.directory_entries()

    def directory_entries(self) -> list[DirectoryEntry]:
        """Lists all names, without an await."""
        return [DirectoryEntry(name, inode.ino, inode.mode >> 12) for name, inode in self.items()]

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens the directory for listing."""
        self.check_access(context)
        return DirectoryFile(self, flags, location)


class DirectoryFile(File):
    """An open synthetic directory: the names are listed anew whenever reading starts over."""

    seekable = True

    def __init__(self, inode: Directory, flags: int, location: Location) -> None:
        super().__init__(inode, flags, location)
        self.directory = inode
        self._rows: list[tuple[int, str, int, int]] = []

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Refuses, read(2)."""
        raise errnos.EISDIR("a directory is read with getdents64")

    def seek(self, offset: int, whence: int) -> int:
        """Moves to a position that an earlier listing gave, or to the start."""
        if whence not in (SEEK_SET, SEEK_CUR):
            raise errnos.EINVAL("directories have no end to seek from")
        self.position = check_position(offset + (self.position if whence == SEEK_CUR else 0))
        return self.position

    async def entries_from(self, position: int) -> list[tuple[int, str, int, int]]:
        """Lists rows of (next position, name, ino, DT_*) from ``position``."""
        if position == 0 or not self._rows:
            self._rows = self._list_rows()
        return self._rows[position:]

    def _list_rows(self) -> list[tuple[int, str, int, int]]:
        here = self.directory.ino
        parent = self.location.dentry.parent if self.location else None
        above = parent.inode.ino if parent is not None and parent.inode is not None else here
        entries = [DirectoryEntry(".", here, 4), DirectoryEntry("..", above, 4), *self.directory.directory_entries()]
        return [(number, entry.name, entry.ino, entry.kind) for number, entry in enumerate(entries, 1)]

    async def sync(self, data_only: bool = False) -> None:
        """Has nothing to write."""


class TextInode(SyntheticInode):
    """A file whose text ``render(subject)`` gives, and that ``store(subject, data, thread)`` may take."""

    def __init__(self, filesystem: SyntheticFileSystem, render: Render | None, subject: Any = None,
                 mode: int | None = None, store: Store | None = None, uid: int = 0, gid: int = 0) -> None:
        if mode is None:
            mode = (0o444 if render else 0) | (0o200 if store else 0)
        super().__init__(filesystem, stat_bits.S_IFREG | mode, uid, gid)
        self.render = render
        self.subject = subject
        self.store = store

    def check_access(self, context: object, flags: int) -> None:
        """Raises unless the guest thread ``context`` may open it, beyond its mode bits."""

    def check_present(self) -> None:
        """Raises if what the text is about has gone since it was opened."""

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens the text."""
        self.check_access(context, flags)
        return TextFile(self, flags, location, context)


class TextFile(File):
    """An open rendered file."""

    seekable = True

    def __init__(self, inode: TextInode, flags: int, location: Location | None, opener: object) -> None:
        super().__init__(inode, flags, location)
        self.text_inode = inode
        self.opener = opener
        """The guest thread that opened it; writes are judged by its identity, as Linux does."""
        self._text: bytes | None = None

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Reads the text, rendered when reading begins at its start."""
        start = self.position if offset is None else offset
        if start == 0 or self._text is None:
            self._text = self.rendered()
        piece = self._text[start : start + count]
        if offset is None:
            self.position += len(piece)
        return piece

    def rendered(self) -> bytes:
        """Renders the text now."""
        inode = self.text_inode
        inode.check_present()
        if inode.render is None:
            raise errnos.EINVAL("not readable")
        text = inode.render(inode.subject)
        return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Hands the bytes over in one piece."""
        inode = self.text_inode
        inode.check_present()
        if inode.store is None:
            raise errnos.EINVAL("not writable")
        if len(data) > WRITE_MAX:
            raise errnos.EINVAL("too much for one write")
        inode.store(inode.subject, data, self.opener)
        if offset is None:
            self.position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int) -> int:
        """Moves the position; there is no end to seek from."""
        if whence not in (SEEK_SET, SEEK_CUR):
            if whence == SEEK_END:
                raise errnos.EINVAL("rendered text has no size")
            raise errnos.EINVAL(f"whence {whence}")
        self.position = check_position(offset + (self.position if whence == SEEK_CUR else 0))
        return self.position

    async def sync(self, data_only: bool = False) -> None:
        """Refuses, fsync(2) of proc files."""
        raise errnos.EINVAL("nothing to sync")


class Symlink(SyntheticInode):
    """A symbolic link with a fixed target; subclasses override :meth:`target_for` to work it out."""

    def __init__(self, filesystem: SyntheticFileSystem, target: str = "", uid: int = 0, gid: int = 0) -> None:
        super().__init__(filesystem, stat_bits.S_IFLNK | 0o777, uid, gid)
        self.target = target

    def target_for(self, context: object) -> str:
        """Gives the text, told which guest thread asks."""
        return self.target

    async def readlink(self) -> str:
        """Gives the text as nobody in particular sees it."""
        return self.target_for(None)

    async def readlink_by(self, context: object) -> str:
        """Gives the text as the guest thread ``context`` sees it."""
        return self.target_for(context)
