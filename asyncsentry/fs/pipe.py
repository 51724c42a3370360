"""Pipes and FIFOs. See pipe(7), fifo(7), and Linux's fs/pipe.c.

A :class:`Pipe` is the buffer; a :class:`PipeFile` is an end of it (or both, for a FIFO opened
O_RDWR). Data stays in the chunks it was written in, so a reader that takes what one writer wrote
copies nothing. Capacity is counted in bytes, a packet (O_DIRECT) as a whole page. A pipe is *writable*
when PIPE_BUF bytes fit, and only the change to that state is announced, as on Linux.
"""

from __future__ import annotations

import stat as stat_bits
from collections import deque
from typing import TYPE_CHECKING, cast

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import O_ACCMODE, O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY
from asyncsentry.abi.ioctls_h import FIONREAD
from asyncsentry.abi.uio_h import PIPE_BUF
from asyncsentry.fs.anon import PIPE_FS, ROOT, AnonInode, store_int
from asyncsentry.fs.file import File
from asyncsentry.fs.inode import Inode, Owner
from asyncsentry.waiter import POLLERR, POLLHUP, READABLE, WRITABLE, BlockContext, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location

DEFAULT_CAPACITY = 16 * 4096
CAPACITY_MAX = 1 << 20
"""What fs.pipe-max-size starts as: what F_SETPIPE_SZ gives without CAP_SYS_RESOURCE."""
_CAPACITY_LIMIT = 1 << 26
"""Most that even CAP_SYS_RESOURCE gets: the sentry's memory is shared by all guests."""


class Packet(bytes):
    """One write in packet mode: a read takes no more than it, and drops what it leaves of it."""


class Pipe:
    """The bytes between two ends."""

    __slots__ = ("buffers", "capacity", "head", "queue", "readers", "reads_opened", "size", "slack", "writers",
                 "writes_opened")  # fmt: skip

    def __init__(self) -> None:
        self.buffers: deque[bytes] = deque()
        self.head = 0
        """How much of the first buffer was read already."""
        self.size = 0
        """Bytes to be read."""
        self.slack = 0
        """What packets take of the capacity beyond their bytes."""
        self.capacity = DEFAULT_CAPACITY
        self.readers = 0
        self.writers = 0
        self.reads_opened = 0
        """How often a reader came: what an open for writing waits to see change."""
        self.writes_opened = 0
        self.queue = WaitQueue()

    @property
    def free(self) -> int:
        """Bytes that fit."""
        return self.capacity - self.size - self.slack

    def read(self, count: int) -> bytes:
        """Takes up to ``count`` of the bytes there are, at most one packet."""
        free = self.capacity - self.size - self.slack
        first = self.buffers[0]
        length = len(first)
        if not self.head and (length == count or (length < count and len(self.buffers) == 1)) and type(first) is bytes:
            self.buffers.popleft()
            self.size -= length
            data = first
        else:
            data = self._read_pieces(count)
        if free < PIPE_BUF <= self.free:
            self.queue.notify(WRITABLE)
        return data

    def _read_pieces(self, count: int) -> bytes:
        pieces: list[bytes] = []
        while self.buffers and count:
            first = self.buffers[0]
            if type(first) is Packet:
                if not pieces:
                    self.drop_first()
                    return bytes(first[:count])
                break
            end = self.head + count
            piece = first[self.head : end] if self.head or end < len(first) else first
            pieces.append(piece)
            count -= len(piece)
            if end >= len(first):
                self.buffers.popleft()
                self.head = 0
            else:
                self.head = end
            self.size -= len(piece)
        return b"".join(pieces)

    def drop_first(self) -> None:
        """Forgets the first buffer, or what is left of it."""
        first = self.buffers.popleft()
        self.size -= len(first) - self.head
        self.head = 0
        if type(first) is Packet:
            self.slack -= PIPE_BUF - len(first)

    def unread(self, data: bytes) -> None:
        """Puts back what was read last but went nowhere."""
        if self.head:
            self.buffers[0] = self.buffers[0][self.head :]
            self.head = 0
        self.buffers.appendleft(data)
        self.size += len(data)
        self.queue.notify(READABLE)

    def tee(self, target: Pipe, count: int) -> int:
        """Copies up to ``count`` bytes to another pipe as far as they fit there, and leaves them here; tee(2)."""
        done = 0
        for index, buffer in enumerate(self.buffers):
            start = self.head if index == 0 else 0
            piece = bytes(buffer[start : start + count - done])
            if not piece:
                break
            try:
                done += target.write(piece, type(buffer) is Packet)
            except errnos.WouldBlock:
                break
        return done

    def write(self, data: bytes, as_packets: bool = False) -> int:
        """Takes what fits: all of it or nothing up to PIPE_BUF bytes; WouldBlock for nothing."""
        length = len(data)
        if as_packets:
            length = self._write_packets(data)
        else:
            free = self.capacity - self.size - self.slack
            if length > free:
                if free < PIPE_BUF or length <= PIPE_BUF:
                    raise errnos.WouldBlock
                data = data[:free]
                length = free
            self.buffers.append(data)
            self.size += length
        self.queue.notify(READABLE)
        return length

    def _write_packets(self, data: bytes) -> int:
        done = 0
        while done < len(data) and self.free >= PIPE_BUF:
            packet = Packet(data[done : done + PIPE_BUF])
            self.buffers.append(packet)
            self.size += len(packet)
            self.slack += PIPE_BUF - len(packet)
            done += len(packet)
        if not done:
            raise errnos.WouldBlock
        return done

    def resize(self, requested: int, privileged: bool, limit: int = CAPACITY_MAX) -> int:
        """Changes the capacity to a power of two of pages and gives it, F_SETPIPE_SZ.

        ``limit`` is fs.pipe-max-size.
        """
        capacity = max(4096, 1 << (requested - 1).bit_length()) if 0 < requested <= 1 << 31 else 0
        if not capacity:
            raise errnos.EINVAL(f"pipe size {requested}")
        if capacity > (_CAPACITY_LIMIT if privileged else min(limit, _CAPACITY_LIMIT)):
            raise errnos.EPERM(f"pipe size {capacity} is above the limit")
        if capacity < self.size + self.slack:
            raise errnos.EBUSY("the pipe holds more than that")
        was_full = self.free < PIPE_BUF
        self.capacity = capacity
        if was_full and self.free >= PIPE_BUF:
            self.queue.notify(WRITABLE)
        return capacity


class PipeFile(File):
    """An open end of a pipe."""

    wakes_one = True

    def __init__(self, pipe: Pipe, inode: Inode, flags: int, location: Location | None = None) -> None:
        super().__init__(inode, flags, location)
        self.pipe = pipe
        self.queue = pipe.queue
        access = flags & O_ACCMODE
        self.reads = access in (O_RDONLY, O_RDWR)
        self.writes = access in (O_WRONLY, O_RDWR)
        self.writers_at_open = -1
        """Count of writers before a FIFO reader that did not wait for one: no hang-up until one came and went."""
        pipe.readers += self.reads
        pipe.writers += self.writes

    @property
    def held_bytes(self) -> int:
        """What is in the pipe, counted at its ends for reading."""
        return self.pipe.size if self.reads else 0

    def describe(self) -> str:
        """Gives ``pipe:[ino]``."""
        return f"pipe:[{self.inode.ino if self.inode else 0}]"

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Takes what is there; empty once it is drained and no writer is left."""
        pipe = self.pipe
        if pipe.buffers and count:
            return pipe.read(count)
        if count and pipe.writers:
            raise errnos.WouldBlock
        return b""

    def unread(self, data: bytes) -> None:
        """Puts back what did not reach the reader."""
        self.pipe.unread(data)

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Adds what fits; EPIPE when nobody reads any more."""
        if not data:
            return 0
        if not self.pipe.readers:
            raise errnos.EPIPE("no reader is left")
        return self.pipe.write(data, bool(self.flags & O_DIRECT))

    def poll(self) -> int:
        """Gives what holds for the directions this end has."""
        pipe, events = self.pipe, 0
        if self.reads:
            if pipe.size or pipe.buffers:
                events = READABLE
            if not pipe.writers and self.writers_at_open != pipe.writes_opened:
                events |= POLLHUP
        if self.writes:
            if pipe.free >= PIPE_BUF:
                events |= WRITABLE
            if not pipe.readers:
                events |= POLLERR
        return events

    def ioctl(self, thread: object, request: int, argument: int) -> int:
        """Knows FIONREAD."""
        if request == FIONREAD:
            return store_int(thread, argument, self.pipe.size)
        raise errnos.ENOTTY(f"no ioctl {request:#x} on a pipe")

    async def release(self) -> None:
        """Leaves; the other end sees the end of file or a broken pipe."""
        pipe = self.pipe
        pipe.readers -= self.reads
        pipe.writers -= self.writes
        if not pipe.readers and not pipe.writers:
            pipe.buffers.clear()
            pipe.head = pipe.size = pipe.slack = 0
            if self.inode is not None and self.inode.pipe is pipe:
                self.inode.pipe = None
        elif not pipe.readers or not pipe.writers:
            pipe.queue.notify(READABLE | WRITABLE | POLLERR | POLLHUP)


def make_pipe(ino: int, flags: int = 0, owner: Owner = ROOT, now_ns: int = 0) -> tuple[PipeFile, PipeFile]:
    """Makes a pipe and gives its read end and its write end; ``flags`` as pipe2(2)'s."""
    inode = AnonInode(PIPE_FS, ino, stat_bits.S_IFIFO | 0o600, owner, now_ns)
    pipe = inode.pipe = Pipe()
    status = flags & (O_NONBLOCK | O_DIRECT)
    return PipeFile(pipe, inode, O_RDONLY | (status & O_NONBLOCK)), PipeFile(pipe, inode, O_WRONLY | status)


async def open_fifo(inode: Inode, flags: int, location: Location | None, context: object) -> PipeFile:
    """Opens a FIFO, waiting for the other side unless O_NONBLOCK or O_RDWR says not to, fifo(7)."""
    pipe = inode.pipe
    if pipe is None:
        pipe = inode.pipe = Pipe()
    access = flags & O_ACCMODE
    waits = inode.filesystem is not PIPE_FS  # an open through /proc/self/fd has a pipe already
    if waits and access == O_WRONLY and flags & O_NONBLOCK and not pipe.readers:
        if not pipe.writers:
            inode.pipe = None
        raise errnos.ENXIO("nobody reads the fifo")
    file = PipeFile(pipe, inode, flags, location)
    pipe.reads_opened += file.reads
    pipe.writes_opened += file.writes
    pipe.queue.notify(READABLE | WRITABLE)  # whoever waits in an open looks again
    try:
        if waits and access == O_RDONLY and not pipe.writers:
            if flags & O_NONBLOCK:
                file.writers_at_open = pipe.writes_opened
            else:
                await _wait_for_writer(pipe, cast(BlockContext, context))
        elif waits and access == O_WRONLY and not pipe.readers:
            await _wait_for_reader(pipe, cast(BlockContext, context))
    except BaseException:
        await file.release()
        raise
    return file


async def _wait_for_writer(pipe: Pipe, context: BlockContext) -> None:
    seen = pipe.writes_opened
    while pipe.writes_opened == seen:
        await context.block(pipe.queue, READABLE)


async def _wait_for_reader(pipe: Pipe, context: BlockContext) -> None:
    seen = pipe.reads_opened
    while pipe.reads_opened == seen:
        await context.block(pipe.queue, WRITABLE)
