"""Open file descriptions: what descriptors number, dup(2) shares and fork(2) inherits.

Reading and writing are *tries*: synchronous calls that do what can be done now or raise
``WouldBlock``. Only ``syscalls/transfer.py`` loops over try, block, try again; no file does. See open(2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from asyncsentry import errnos
from asyncsentry.fs.notify import IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, notify_file
from asyncsentry.fs.writecount import put_access
from asyncsentry.waiter import READABLE, WRITABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.inode import Inode

O_ACCMODE = 0o3
O_RDONLY = 0
O_WRONLY = 1
O_RDWR = 2
O_NONBLOCK = 0o4000
O_APPEND = 0o2000
O_PATH = 0o10000000

SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE = range(5)
OFFSET_MAX = (1 << 63) - 1


class Registration(Protocol):
    """Something kept elsewhere about an open file that must go when the file does (an epoll item)."""

    def file_released(self) -> None:
        """Runs when the last reference to the file is gone, before it is released."""


class File:
    """One open file description. Subclasses override the tries their kind can do."""

    seekable = False
    """Whether pread(2) and lseek(2) work; pipes, sockets and terminals say ESPIPE."""
    keeps_position = True
    """Whether :attr:`position` is where the next read or write goes; a file shared with the host has it there."""
    pollable = True
    """Whether epoll(7) takes it; files that are always ready say no (so do regular files and directories)."""
    wakes_one = False
    """Whether of several who wait to read, or to write, only one is woken at a time (pipes)."""
    takes_one_write = False
    """Whether a write is over once it took anything, however much was offered (eventfd)."""
    raises_sigpipe = True
    """Whether EPIPE from a write comes with SIGPIPE; not for sockets that have messages, send(2)."""
    registrations: list[Registration] | None = None
    """Who is told when the file is released; kept by ``epoll.py``."""

    write_share = 0
    """1 if it counts as a writer of its inode, -1 if it keeps writers off; kept by ``writecount.py``."""
    maps_as_anonymous = False
    """Whether mmap(2) of it gives fresh zeroed memory (/dev/zero)."""

    def __init__(self, inode: Inode | None, flags: int, location: Location | None = None) -> None:
        self.inode = inode
        self.flags = flags
        """Access mode and status flags (``O_*``) as F_GETFL shows them."""
        self.location = location
        self.position = 0
        self.references = 0
        """Descriptors and in-flight uses; :meth:`release` runs when it falls to zero."""
        self.queue: WaitQueue = WaitQueue()
        self.owner: object | None = None
        """Who gets SIGIO, F_SETOWN; kept by fcntl(2)."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept for whoever reads it: our memory, on a guest's account."""
        return 0

    @property
    def readable(self) -> bool:
        """Whether the access mode lets it be read."""
        return self.flags & O_ACCMODE != O_WRONLY and not self.flags & O_PATH

    @property
    def writable(self) -> bool:
        """Whether the access mode lets it be written."""
        return self.flags & O_ACCMODE != O_RDONLY and not self.flags & O_PATH

    @property
    def read_timeout_ns(self) -> int | None:
        """How long a blocking read may take before it fails with EAGAIN, SO_RCVTIMEO; ``None`` for ever."""
        return None

    @property
    def write_timeout_ns(self) -> int | None:
        """The same for writes, SO_SNDTIMEO."""
        return None

    @property
    def host_fd(self) -> int | None:
        """A host descriptor that reads may go to directly, since nothing else is to be done for them; or none."""
        return None

    def describe(self) -> str:
        """Gives the text of ``/proc/self/fd/N`` for files without a path, e.g. ``pipe:[7]``."""
        return "anon_inode:[file]"

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Reads up to ``count`` bytes now, at ``offset`` or at (and moving) the position.

        Empty means end of file. Raises WouldBlock when there is nothing yet.
        """
        raise errnos.EINVAL("not readable")

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Writes what fits now and gives how much; WouldBlock when nothing does."""
        raise errnos.EINVAL("not writable")

    def unread(self, data: bytes) -> None:
        """Takes back the end of what :meth:`try_read` gave, when it could not be delivered."""
        if self.seekable:
            self.position -= len(data)

    def seen_by(self, thread: object) -> File:
        """Gives the file as this thread uses it; another object only for signalfd(2) and terminals."""
        return self

    def poll(self) -> int:
        """Gives the ``POLL*`` bits that hold now; a change is announced on :attr:`queue`."""
        return READABLE | WRITABLE

    def seek(self, offset: int, whence: int) -> int:
        """Moves the position and gives it, lseek(2)."""
        raise errnos.ESPIPE("not seekable")

    def ioctl(self, thread: object, request: int, argument: int) -> int | Awaitable[int]:
        """Does a file's own control calls; ENOTTY for those it does not know. ``thread`` is the caller."""
        raise errnos.ENOTTY(f"no ioctl {request:#x} here")

    def host_descriptor(self, writable: bool) -> int:
        """Gives a host descriptor of the content, for the platform to map; stays ours.

        ``writable`` says a shared, writable mapping is wanted. ENODEV if it cannot be mapped, mmap(2).
        """
        raise errnos.ENODEV("cannot be mapped")

    async def fallocate(self, mode: int, offset: int, length: int) -> None:
        """Reserves, frees or shifts space; the caller has checked range and mode, fallocate(2)."""
        raise errnos.EOPNOTSUPP("no space can be reserved")

    def add_seals(self, seals: int) -> None:
        """Adds ``F_SEAL_*``; EINVAL where there are no seals."""
        raise errnos.EINVAL("cannot be sealed")

    def get_seals(self) -> int:
        """Gives the ``F_SEAL_*`` in force."""
        raise errnos.EINVAL("cannot be sealed")

    async def sync(self, data_only: bool = False) -> None:
        """Writes content through, fsync(2)."""
        raise errnos.EINVAL("nothing to sync")

    async def entries_from(self, position: int) -> list[tuple[int, str, int, int]]:
        """Lists a directory from ``position``: rows of (next position, name, ino, DT_*), ``.`` first."""
        raise errnos.ENOTDIR("not a directory")

    async def finish(self) -> None:
        """Ends the file, when :attr:`references` has fallen to zero: tells who wants to know, and releases it."""
        for registration in tuple(self.registrations or ()):
            registration.file_released()
        if not self.flags & O_PATH:
            notify_file(self, IN_CLOSE_WRITE if self.writable else IN_CLOSE_NOWRITE)
            if self.inode is not None and self.inode.locks is not None:
                self.inode.locks.release_file(self)
        put_access(self)
        await self.release()

    async def release(self) -> None:
        """Lets go of what it holds; called once, when nobody refers to it any more."""


def check_position(position: int) -> int:
    """Gives a position back if a file can be moved there; EINVAL otherwise, vfs_setpos()."""
    if not 0 <= position <= OFFSET_MAX:
        raise errnos.EINVAL(f"no position {position}")
    return position


def seek_regular(file: File, size: int, offset: int, whence: int, seek_hole_or_data: Callable[[int, int], int]) -> int:
    """Works out where lseek(2) leads in a regular file of that size."""
    if whence in (SEEK_DATA, SEEK_HOLE):
        return seek_hole_or_data(offset, whence)
    base = {SEEK_SET: 0, SEEK_CUR: file.position, SEEK_END: size}.get(whence)
    if base is None:
        raise errnos.EINVAL(f"no whence {whence}")
    return check_position(base + offset)
