"""Descriptors of the host that a guest inherits: standard streams that are pipes, files, sockets or devices.

The host's open description is shared with whoever started us, so its O_NONBLOCK flag is never touched:
each transfer asks not to wait (``RWF_NOWAIT``), or, where the host's file does not know that, only happens
after poll(2) said yes. Readiness comes from a private epoll instance, which is what the event loop watches:
libuv would set O_NONBLOCK on the descriptor itself. Files epoll does not take are always ready. See epoll(7).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import stat as stat_bits
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from asyncsentry import errnos
from asyncsentry.abi.ioctls_h import FIONREAD
from asyncsentry.fs.anon import AnonInode, InternalFileSystem, store_int
from asyncsentry.fs.file import O_ACCMODE, O_APPEND, File
from asyncsentry.fs.hostfile import sync_host_file
from asyncsentry.fs.inode import Stat
from asyncsentry.waiter import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDHUP,
    READABLE,
    WRITABLE,
    Waiter,
    WaitQueue,
)

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location

HOST_FS: Final = InternalFileSystem("hostfs", 0x00C0FFEE, os.makedev(0, 0xFFF05))
"""What fstat(2) tells inherited files live in; constant and never mounted."""
READ_MAX = 1 << 18
SAFE_WRITE = 4096
"""What a host pipe that polls writable takes without blocking (PIPE_BUF)."""
_WATCHED = POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLERR | POLLHUP


class HostInode(AnonInode):
    """The inode of a host descriptor; its attributes are asked of the host."""

    def __init__(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        super().__init__(HOST_FS, status.st_ino, status.st_mode)
        self.descriptor = descriptor
        self.uid, self.gid = status.st_uid, status.st_gid

    def stat(self) -> Stat:
        """Gives the host's attributes, but not its device numbers."""
        status = os.fstat(self.descriptor)
        return Stat(
            self.filesystem.device, status.st_ino, status.st_mode, status.st_nlink, self.uid, self.gid, status.st_rdev,
            status.st_size, status.st_blocks, status.st_blksize, status.st_atime_ns, status.st_mtime_ns,
            status.st_ctime_ns, 0,
        )  # fmt: skip

    async def open(self, flags: int, location: Location, context: object) -> File:
        """Opens it anew through ``/proc/self/fd`` (so ``/dev/stdout``), as far as the host lets us use it.

        A regular file shares its position with the stream it came from, unlike on Linux.
        """
        had, wanted = fcntl.fcntl(self.descriptor, fcntl.F_GETFL) & O_ACCMODE, flags & O_ACCMODE
        if had not in (wanted, os.O_RDWR):
            raise errnos.EACCES("the host's stream is not open for that")
        file = HostStreamFile.duplicate(self.descriptor)
        file.flags = flags
        file.location = location
        return file


class _StreamQueue(WaitQueue):
    """A queue that lets its file watch the host only while somebody waits."""

    __slots__ = ("_file",)

    def __init__(self, file: HostStreamFile) -> None:
        super().__init__()
        self._file = file

    def add(self, waiter: Waiter) -> None:
        """Adds a waiter and has the host watched."""
        super().add(waiter)
        self._file.watch(waiter.mask)


class HostStreamFile(File):
    """One inherited descriptor. ``owned`` says whether it is closed with the file."""

    keeps_position = False

    def __init__(self, descriptor: int, owned: bool = False) -> None:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & (O_ACCMODE | O_APPEND)
        super().__init__(HostInode(descriptor), flags)
        self.descriptor = descriptor
        self.owned = owned
        kind = stat_bits.S_IFMT(os.fstat(descriptor).st_mode)
        self.is_regular = kind in (stat_bits.S_IFREG, stat_bits.S_IFBLK)
        self.seekable = self.is_regular
        self.pollable = not self.is_regular
        self.queue = _StreamQueue(self)
        self._kind = kind
        self._no_wait = True
        """Whether the host's file may still know RWF_NOWAIT."""
        self._always_ready = self.is_regular
        self._epoll = None if self.is_regular else select.epoll()  # now, since a wait could not say EMFILE
        self._loop: asyncio.AbstractEventLoop | None = None
        self._armed = 0
        """The directions (POLLIN, POLLOUT) whose next readiness the host will announce."""

    @classmethod
    def duplicate(cls, descriptor: int) -> HostStreamFile:
        """Makes a file of its own for a host descriptor; EMFILE when there are too many."""
        copy = -1
        try:
            copy = os.dup(descriptor)
            return cls(copy, owned=True)
        except OSError as error:
            if copy >= 0:
                os.close(copy)
            raise errnos.from_host(error) from None

    def describe(self) -> str:
        """Gives e.g. ``pipe:[7]``; the host's paths are not the guest's business."""
        kinds = {stat_bits.S_IFIFO: "pipe", stat_bits.S_IFSOCK: "socket", stat_bits.S_IFCHR: "device"}
        assert self.inode is not None
        return f"{kinds.get(self._kind, 'file')}:[{self.inode.ino}]"

    # Transfers ------------------------------------------------------------------------------------

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Reads what the host has now."""
        if not count:
            return b""
        try:
            data = self._read(min(count, READ_MAX) if not self.is_regular else count, offset)
        except BlockingIOError:
            self.watch(POLLIN)
            raise errnos.WouldBlock from None
        except OSError as error:
            raise errnos.from_host(error) from None
        self.watch(POLLIN)
        return data

    def _read(self, count: int, offset: int | None) -> bytes:
        if offset is not None:
            return os.pread(self.descriptor, count, offset)
        if self.is_regular:
            return os.read(self.descriptor, count)
        if self._no_wait:
            buffer = bytearray(count)
            try:
                return bytes(buffer[: os.preadv(self.descriptor, [buffer], -1, os.RWF_NOWAIT)])
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ESPIPE, errno.EINVAL):
                    raise
                self._no_wait = False
        if not self._poll_host() & (POLLIN | POLLHUP | POLLERR):
            raise BlockingIOError
        return os.read(self.descriptor, count)

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Writes what the host takes now."""
        if not data:
            return 0
        try:
            written = self._write(data, offset)
        except BlockingIOError:
            self.watch(POLLOUT)
            raise errnos.WouldBlock from None
        except OSError as error:
            raise errnos.from_host(error) from None
        if written < len(data):
            self.watch(POLLOUT)
        return written

    def _write(self, data: bytes, offset: int | None) -> int:
        if offset is not None:
            return os.pwrite(self.descriptor, data, offset)
        if self.is_regular:
            return os.write(self.descriptor, data)
        if self._no_wait:
            try:
                return os.pwritev(self.descriptor, [data], -1, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ESPIPE, errno.EINVAL):
                    raise
                self._no_wait = False
        if not self._poll_host() & (POLLOUT | POLLHUP | POLLERR):
            raise BlockingIOError
        return os.write(self.descriptor, data[:SAFE_WRITE])

    # Readiness ------------------------------------------------------------------------------------

    def _poll_host(self) -> int:
        poller = select.poll()
        poller.register(self.descriptor, _WATCHED)
        ready = poller.poll(0)
        return ready[0][1] if ready else 0

    def poll(self) -> int:
        """Asks the host what holds now."""
        if self._always_ready:
            return READABLE | WRITABLE
        mask = self._poll_host()
        self.watch((POLLIN | POLLOUT) & ~mask)
        mask |= READABLE if mask & POLLIN else 0
        return mask | (WRITABLE if mask & POLLOUT else 0)

    def watch(self, directions: int) -> None:
        """Has the next readiness in these directions announced, as far as somebody waits for it.

        Only directions that were found not ready are armed again, or a stream that can always be written
        would keep announcing so.
        """
        armed = self._armed | directions & self.queue.wanted() & (POLLIN | POLLOUT)
        if self._always_ready or armed == self._armed:
            return
        self._armed = armed
        self._arm()

    def _arm(self) -> None:
        events = select.EPOLLONESHOT | self._armed
        if self._armed & POLLIN:
            events |= select.EPOLLPRI | select.EPOLLRDHUP
        assert self._epoll is not None
        if self._loop is not None:
            self._epoll.modify(self.descriptor, events)
            return
        try:
            self._epoll.register(self.descriptor, events)
        except PermissionError:  # a file epoll does not take is always ready
            self._always_ready = True
            self.queue.notify(READABLE | WRITABLE)
            return
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._host_changed)

    def _host_changed(self) -> None:
        assert self._epoll is not None
        ready = self._epoll.poll(0)
        if not ready:
            return
        mask = ready[0][1]
        # The host's one shot is spent for both directions: what did not fire is armed again.
        self._armed = 0 if mask & (POLLHUP | POLLERR) else self._armed & ~mask
        if self._armed:
            self._arm()
        mask |= READABLE if mask & POLLIN else 0
        mask |= WRITABLE if mask & POLLOUT else 0
        self.queue.notify(mask)

    # The rest -------------------------------------------------------------------------------------

    def seek(self, offset: int, whence: int) -> int:
        """Moves the position that is shared with the host."""
        if not self.seekable:
            raise errnos.ESPIPE("a stream has no position")
        try:
            return os.lseek(self.descriptor, offset, whence)
        except OSError as error:
            raise errnos.from_host(error) from None

    def unread(self, data: bytes) -> None:
        """Goes back in a regular file; what came from a stream is lost."""
        if self.seekable:
            os.lseek(self.descriptor, -len(data), os.SEEK_CUR)

    def ioctl(self, thread: object, request: int, argument: int) -> int | Awaitable[int]:
        """Answers FIONREAD; inherited files are no terminals to the guest."""
        if request != FIONREAD:
            raise errnos.ENOTTY(f"no ioctl {request:#x} here")
        try:
            answer = fcntl.ioctl(self.descriptor, FIONREAD, bytes(4))
        except OSError as error:
            raise errnos.from_host(error) from None
        return store_int(thread, argument, int.from_bytes(answer, "little"))

    def host_descriptor(self, writable: bool) -> int:
        """Gives the descriptor of a regular file."""
        if not self.is_regular:
            raise errnos.ENODEV("a stream cannot be mapped")
        return self.descriptor

    async def sync(self, data_only: bool = False) -> None:
        """Writes a regular file through."""
        if not self.is_regular:
            raise errnos.EINVAL("nothing to sync")
        await sync_host_file(self.descriptor, data_only)

    async def release(self) -> None:
        """Stops watching; closes the descriptor if it is ours."""
        self.close()

    def close(self) -> None:
        """Does the same at once, for owners outside the guest."""
        if self._epoll is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        self._always_ready = True
        if self.owned:
            os.close(self.descriptor)
