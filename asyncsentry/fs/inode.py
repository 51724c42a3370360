"""Inodes: one object per file, with its attributes, and for directories the changes to their names.

What a file system must provide. The virtual file system (``vfs.py``) has checked permissions, name
lengths and mount flags before it calls any of these, and keeps the dentry cache right afterwards.
Names and link targets are ``str`` decoded with ``os.fsdecode`` (bytes that are not UTF-8 survive as
surrogates). Operations that may need a trip to the gofer are ``async``. See inode(7), path_resolution(7).
"""

from __future__ import annotations

import asyncio
import stat as stat_bits
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from asyncsentry import errnos
from asyncsentry.fs.dentry import Dentry

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.file import File
    from asyncsentry.fs.locks import InodeLocks
    from asyncsentry.fs.pipe import Pipe


class Owner(NamedTuple):
    """User and group a new file belongs to."""

    uid: int
    gid: int


class Stat(NamedTuple):
    """What stat(2) and statx(2) tell of a file; times in nanoseconds since the epoch."""

    dev: int
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int


@dataclass(slots=True)
class StatFs:
    """What statfs(2) tells of a file system."""

    magic: int
    block_size: int = 4096
    blocks: int = 0
    blocks_free: int = 0
    blocks_available: int = 0
    files: int = 0
    files_free: int = 0
    name_length_max: int = 255


@dataclass(slots=True)
class AttributeChange:
    """The attributes a call wants changed; ``None`` leaves one alone.

    ``mode`` holds permission bits only. The caller has worked out which set-ID bits to clear.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


class DirectoryEntry(NamedTuple):
    """One row of getdents64(2); ``kind`` is a ``DT_*`` number, which is ``mode >> 12``."""

    name: str
    ino: int
    kind: int


class Watches(Protocol):
    """The watches on one inode, inotify(7)."""

    def notify(self, mask: int, name: str, cookie: int, is_unlinked: bool = False) -> None:
        """Reports an event (``IN_*``); ``name`` is the entry's for a watched directory, else empty.

        ``is_unlinked`` says that the name is gone already, IN_EXCL_UNLINK.
        """


class FileSystem:
    """One mounted instance: a device number, a root, and what it says of itself."""

    name = "none"
    """As in /proc/filesystems and /proc/self/mountinfo."""
    exclusive = True
    """Whether only this sandbox changes it, so that cached dentries never go stale."""
    read_only = False

    def __init__(self, device: int) -> None:
        self.device = device
        self.root: Inode
        self._root_dentry: Dentry | None = None
        self.changes = asyncio.Lock()
        """Held while a name changes, so that the dentry cache and the file system change as one."""
        self.cached = 0
        """About how many dentries are cached; kept by ``dcache.py``."""
        self.cached_kept = 0
        """How many of them could not be dropped the last time that was tried."""
        self.renames = 0
        """Renames so far, for inotify's cookies."""

    @property
    def root_dentry(self) -> Dentry:
        """The top of its dentry tree, which all mounts of it share."""
        if self._root_dentry is None:
            self._root_dentry = Dentry("", None, self.root)
        return self._root_dentry

    def statfs(self) -> StatFs:
        """Gives sizes and the magic number."""
        raise NotImplementedError

    async def refresh(self) -> None:
        """Asks the owner of a shared file system for its present sizes; a no-op where we own it."""

    def mount_options(self) -> str:
        """Gives the options shown after the mount's own in /proc/mounts, without ``rw``."""
        return ""

    async def sync(self) -> None:
        """Writes what is not yet written, syncfs(2)."""

    async def release(self) -> None:
        """Gives host resources back when the last mount of it is gone."""


class Inode:
    """One file. Subclasses override what their kind of file can do; the rest says no as Linux does."""

    locks: InodeLocks | None = None
    """flock(2) and fcntl(2) locks, once somebody has asked for one."""
    watches: Watches | None = None
    """Who wants to hear of changes, inotify(7)."""
    link_target: str | None = None
    """The text of a symbolic link that was followed before, where nobody else can change it; kept by ``path.py``."""
    is_linkable = False
    """Whether a file without names may be given one: O_TMPFILE without O_EXCL."""
    write_hint = 0
    """How long what is written will live, as its owner guesses: F_SET_RW_HINT."""
    writers = 0
    """How many open files may write it; kept by ``writecount.py``."""
    denials = 0
    """How many open files keep writers off, since they are being executed; kept by ``writecount.py``."""
    bound_socket: object | None = None
    """The AF_UNIX socket bound to this name, while it lives; kept by ``net/unix.py``."""
    pipe: Pipe | None = None
    """What an open FIFO holds; kept by ``pipe.py``."""

    def __init__(self, filesystem: FileSystem, ino: int, mode: int, uid: int = 0, gid: int = 0) -> None:
        self.filesystem = filesystem
        self.ino = ino
        self.mode = mode
        """Type and permission bits, as ``st_mode``."""
        self.uid = uid
        self.gid = gid
        self.nlink = 1
        self.rdev = 0

    @property
    def kind(self) -> int:
        """The type bits of the mode, e.g. ``stat.S_IFREG``."""
        return stat_bits.S_IFMT(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether names can be looked up in it."""
        return stat_bits.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether a walk may follow it."""
        return stat_bits.S_ISLNK(self.mode)

    def stat(self) -> Stat:
        """Gives the attributes as last known."""
        raise NotImplementedError

    async def refresh(self) -> None:
        """Asks the owner of a shared file for its present attributes; a no-op where we own it."""

    async def set_attributes(self, change: AttributeChange) -> None:
        """Changes attributes, and the size: chmod(2), chown(2), utimensat(2), truncate(2)."""
        raise errnos.EPERM("attributes of this file cannot be changed")

    # Directories ---------------------------------------------------------------------------------

    async def lookup(self, name: str) -> Inode:
        """Finds a name; ENOENT if it is not there. Never called with ``.`` or ``..``."""
        raise errnos.ENOTDIR("not a directory")

    async def lookup_path(self, names: Sequence[str]) -> list[Inode | None]:
        """Finds a chain of names, each in the one before, in as few trips as it can.

        Ends early where it likes, at the latest at what is no directory; ``None`` at its end means that the
        last name looked up does not exist.
        """
        try:
            return [await self.lookup(names[0])]
        except errnos.ENOENT:
            return [None]

    async def entries(self) -> list[DirectoryEntry]:
        """Lists all names but ``.`` and ``..``, in an order that stays while nothing changes."""
        raise errnos.ENOTDIR("not a directory")

    async def create(self, name: str, mode: int, owner: Owner) -> Inode:
        """Makes a regular file; EEXIST if the name is taken."""
        raise errnos.EPERM("no files can be made here")

    async def create_unnamed(self, mode: int, owner: Owner) -> Inode:
        """Makes a regular file with no name, ``O_TMPFILE``."""
        raise errnos.EOPNOTSUPP("no unnamed files here")

    async def mkdir(self, name: str, mode: int, owner: Owner) -> Inode:
        """Makes a directory."""
        raise errnos.EPERM("no directories can be made here")

    async def symlink(self, name: str, target: str, owner: Owner) -> Inode:
        """Makes a symbolic link."""
        raise errnos.EPERM("no links can be made here")

    async def mknod(self, name: str, mode: int, device: int, owner: Owner) -> Inode:
        """Makes a FIFO, a socket or a device node."""
        raise errnos.EPERM("no nodes can be made here")

    async def link(self, name: str, target: Inode) -> None:
        """Gives ``target``, of the same file system, one more name."""
        raise errnos.EPERM("no links can be made here")

    async def unlink(self, name: str, victim: Inode) -> None:
        """Takes a name away from a file that is not a directory."""
        raise errnos.EPERM("names cannot be removed here")

    async def rmdir(self, name: str, victim: Inode) -> None:
        """Removes an empty directory; ENOTEMPTY otherwise."""
        raise errnos.EPERM("names cannot be removed here")

    async def rename(self, name: str, moved: Inode, parent: Inode, new_name: str, replaced: Inode | None,
                     exchange: bool) -> None:
        """Moves a name of this directory to ``new_name`` in ``parent`` (same file system), atomically.

        ``replaced`` is what now stands there; with ``exchange`` the two change places.
        """
        raise errnos.EPERM("names cannot be changed here")

    # Links ---------------------------------------------------------------------------------------

    async def readlink(self) -> str:
        """Gives the target's text."""
        raise errnos.EINVAL("not a symbolic link")

    async def readlink_by(self, context: object) -> str:
        """Gives the text as the guest thread ``context`` sees it (``/proc/self``); what readlink(2) and walks use."""
        return await self.readlink()

    def magic_target(self, context: object) -> Location | None:
        """Gives where a magic link (``/proc/self/fd/3``) leads directly; ``None`` for ordinary links.

        ``context`` is the walking guest thread.
        """
        return None

    # Content -------------------------------------------------------------------------------------

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Makes an open file description; ``O_TRUNC`` has been done by the caller.

        ``context`` is the opening guest thread (a FIFO's open may block on it, ``/dev/tty`` asks it).
        """
        raise errnos.ENXIO("cannot be opened")

    # Extended attributes, xattr(7) ---------------------------------------------------------------

    async def get_xattr(self, name: str) -> bytes:
        """Gives an attribute's value; ENODATA if it has none of that name."""
        raise errnos.EOPNOTSUPP("no extended attributes here")

    async def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """Sets one, minding XATTR_CREATE and XATTR_REPLACE."""
        raise errnos.EOPNOTSUPP("no extended attributes here")

    async def remove_xattr(self, name: str) -> None:
        """Removes one; ENODATA if it is not there."""
        raise errnos.EOPNOTSUPP("no extended attributes here")

    async def list_xattrs(self) -> list[str]:
        """Lists the names."""
        return []
