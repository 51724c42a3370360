"""sendfile(2), splice(2), tee(2), vmsplice(2) and copy_file_range(2): bytes that never enter guest memory.

Data taken from a pipe for a file that then does not take it goes back to the front of the pipe. See
Linux's fs/splice.c; what may wait, for which end, and which offset gives which error is as there.
"""

from __future__ import annotations

import asyncio

from asyncsentry.abi.fcntl_h import O_APPEND, O_NONBLOCK
from asyncsentry.abi.stat_h import S_IFDIR, S_IFREG
from asyncsentry.abi.uio_h import PIPE_BUF, SPLICE_F_ALL, SPLICE_F_NONBLOCK
from asyncsentry.errnos import (
    EAGAIN,
    EBADF,
    EFAULT,
    EINVAL,
    EISDIR,
    EPIPE,
    ESPIPE,
    LinuxError,
    WouldBlock,
)
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.file import SEEK_CUR, SEEK_SET, File
from asyncsentry.fs.notify import IN_ACCESS, IN_MODIFY, notify_file
from asyncsentry.fs.pipe import PipeFile
from asyncsentry.syscalls.args import Fd, Flags, Pointer, Size
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.transfer import (
    READ_EVENTS,
    SIGPIPE,
    WRITE_EVENTS,
    allowed_size,
    clamp_count,
    gather,
    push,
    raise_signal,
    read_into,
    readable_file,
    wait_ready,
    writable_file,
)
from asyncsentry.tasks.thread import Thread

_CHUNK = 1 << 18
_CHUNKS_PER_TURN = 64


class _Cursor:
    """Where one side of a transfer stands: an offset of the guest's, or the file's own position."""

    __slots__ = ("address", "file", "offset")

    def __init__(self, thread: Thread, file: File, address: int) -> None:
        self.file = file
        self.address = address
        self.offset: int | None = None
        if address:
            self.offset = thread.memory.read_i64(address)
            if self.offset < 0:
                raise EINVAL(f"offset {self.offset}")
        elif file.seekable:
            self.offset = file.position if file.keeps_position else file.seek(0, SEEK_CUR)

    def advance(self, count: int) -> None:
        """Moves on."""
        if self.offset is not None:
            self.offset += count

    def store(self, thread: Thread) -> None:
        """Tells the guest, or the file, where the transfer ended."""
        if self.offset is None:
            return
        if self.address:
            thread.memory.write_i64(self.address, self.offset)
        elif self.file.keeps_position:
            self.file.position = self.offset
        else:
            self.file.seek(self.offset, SEEK_SET)


def _announce(thread: Thread, source: File, target: File) -> None:
    if thread.kernel.inotify.watches:
        notify_file(source, IN_ACCESS)
        notify_file(target, IN_MODIFY)


# File to file ------------------------------------------------------------------------------------


async def _copy(thread: Thread, source: _Cursor, target: _Cursor, count: int) -> int:
    """Copies from a file with positions to any file until ``count``, the end, or an error after the first byte."""
    nonblocking = bool(target.file.flags & O_NONBLOCK)
    count = allowed_size(thread, target.file, count, target.offset)
    done = turns = 0
    source.file.references += 1
    target.file.references += 1
    try:
        while done < count:
            data = source.file.try_read(min(count - done, _CHUNK), source.offset)
            if not data:
                break
            pushed, error = await push(thread, target.file, data, target.offset, nonblocking)
            source.advance(pushed)
            target.advance(pushed)
            done += pushed
            if error is not None and not done:
                raise error
            if pushed < len(data):
                break
            turns += 1
            if turns % _CHUNKS_PER_TURN == 0:
                await asyncio.sleep(0)
                if thread.is_dying:
                    break
    except LinuxError:
        if not done:
            raise
    finally:
        await drop(source.file)
        await drop(target.file)
    if done:
        _announce(thread, source.file, target.file)
    return done


@syscall(40, errnos="EAGAIN EBADF EFAULT EINVAL EIO ENOMEM EOVERFLOW EPIPE ESPIPE")
async def sendfile(thread: Thread, out_fd: Fd, in_fd: Fd, offset: Pointer, count: Size) -> int:
    """sendfile(2): EBADF and ESPIPE for the source, EBADF for the target, then EINVAL for kinds that do not fit."""
    source = readable_file(thread, in_fd)
    if offset and not source.seekable:
        raise ESPIPE(f"fd {in_fd} has no positions")
    start = _Cursor(thread, source, offset)
    target = writable_file(thread, out_fd)
    total = clamp_count(count)
    if not source.seekable or target.flags & O_APPEND:
        raise EINVAL("not a source with positions, or a target that appends")
    _refuse_directory(source)
    end = _Cursor(thread, target, 0)
    done = await _copy(thread, start, end, total)
    if done:
        end.store(thread)
    start.store(thread)
    return done


def _refuse_directory(file: File) -> None:
    if file.inode is not None and file.inode.kind == S_IFDIR:
        raise EINVAL("a directory")


@syscall(326, errnos="EBADF EFAULT EFBIG EINVAL EIO EISDIR ENOSPC EOVERFLOW ETXTBSY")
async def copy_file_range(thread: Thread, in_fd: Fd, in_offset: Pointer, out_fd: Fd, out_offset: Pointer, count: Size,
                          flags: Flags) -> int:
    """copy_file_range(2): EBADF, EFAULT for offsets, EINVAL for flags, then EISDIR and EINVAL for kinds of file."""
    source, target = readable_file(thread, in_fd), writable_file(thread, out_fd)
    start, end = _Cursor(thread, source, in_offset), _Cursor(thread, target, out_offset)
    if flags:
        raise EINVAL(f"flags {flags:#x}")
    for file in (source, target):
        kind = file.inode.kind if file.inode is not None else 0
        if kind == S_IFDIR:
            raise EISDIR("a directory")
        if kind != S_IFREG or not file.seekable:
            raise EINVAL("not a regular file")
    if target.flags & O_APPEND:
        raise EBADF(f"fd {out_fd} appends")
    assert source.inode is not None
    assert start.offset is not None
    total = min(clamp_count(count), max(0, source.inode.stat().size - start.offset))
    _refuse_overlap(start, end, total)
    done = await _copy(thread, start, end, total)
    start.store(thread)
    end.store(thread)
    return done


def _refuse_overlap(start: _Cursor, end: _Cursor, count: int) -> None:
    assert start.offset is not None
    assert end.offset is not None
    if start.file.inode is end.file.inode and abs(start.offset - end.offset) < count:
        raise EINVAL("the ranges overlap")


# Pipes -------------------------------------------------------------------------------------------


async def wait_for_data(thread: Thread, pipe: PipeFile, nonblocking: bool) -> bool:
    """Waits until a pipe has something; ``False`` if it never will."""
    while not pipe.pipe.buffers:
        if not pipe.pipe.writers:
            return False
        if nonblocking:
            raise EAGAIN("the pipe is empty")
        await wait_ready(thread, pipe, READ_EVENTS)
    return True


async def wait_for_room(thread: Thread, pipe: PipeFile, nonblocking: bool) -> int:
    """Waits until a page fits in a pipe and gives how much does; EPIPE with SIGPIPE if nobody reads."""
    while True:
        if not pipe.pipe.readers:
            raise_signal(thread, SIGPIPE)
            raise EPIPE("no reader is left")
        if pipe.pipe.free >= PIPE_BUF:
            return pipe.pipe.free
        if nonblocking:
            raise EAGAIN("the pipe is full")
        await wait_ready(thread, pipe, WRITE_EVENTS)


@syscall(275, errnos="EAGAIN EBADF EFAULT EINVAL EPIPE ESPIPE")
async def splice(thread: Thread, in_fd: Fd, in_offset: Pointer, out_fd: Fd, out_offset: Pointer, count: Size,
                 flags: Flags) -> int:
    """splice(2): EINVAL for flags, EBADF, ESPIPE for a pipe with an offset, EINVAL if neither is a pipe."""
    if not count:
        return 0
    if flags & ~SPLICE_F_ALL:
        raise EINVAL(f"flags {flags:#x}")
    source, target = readable_file(thread, in_fd), writable_file(thread, out_fd)
    for file, offset in ((source, in_offset), (target, out_offset)):
        if offset and isinstance(file, PipeFile):
            raise ESPIPE("a pipe has no positions")
        if offset and not file.seekable:
            raise EINVAL("not a file with positions")
    source.references += 1
    target.references += 1
    try:
        done = await _splice(thread, _Cursor(thread, source, in_offset), _Cursor(thread, target, out_offset),
                             clamp_count(count), bool(flags & SPLICE_F_NONBLOCK))  # fmt: skip
    finally:
        await drop(source)
        await drop(target)
    if done:
        _announce(thread, source, target)
    return done


async def _splice(thread: Thread, start: _Cursor, end: _Cursor, count: int, nonblocking: bool) -> int:
    source, target = start.file, end.file
    if isinstance(source, PipeFile) and isinstance(target, PipeFile):
        if source.pipe is target.pipe:
            raise EINVAL("both ends of one pipe")
        return await _pipe_to_pipe(thread, source, target, count, nonblocking)
    if isinstance(source, PipeFile):
        if target.flags & O_APPEND and target.seekable:
            raise EINVAL("the target appends")
        done = await _pipe_to_file(thread, source, end, count, nonblocking)
        end.store(thread)
        return done
    if isinstance(target, PipeFile):
        done = await _file_to_pipe(thread, start, target, count, nonblocking)
        start.store(thread)
        return done
    raise EINVAL("neither is a pipe")


async def _pipe_to_pipe(thread: Thread, source: PipeFile, target: PipeFile, count: int, nonblocking: bool) -> int:
    nonblocking = nonblocking or bool((source.flags | target.flags) & O_NONBLOCK)
    while True:
        if not await wait_for_data(thread, source, nonblocking):
            return 0
        room = await wait_for_room(thread, target, nonblocking)
        if source.pipe.buffers:  # waiting for room, others may have emptied it
            return target.pipe.write(source.pipe.read(min(count, room)))


async def _pipe_to_file(thread: Thread, source: PipeFile, end: _Cursor, count: int, nonblocking: bool) -> int:
    if not await wait_for_data(thread, source, nonblocking or bool(source.flags & O_NONBLOCK)):
        return 0
    count = allowed_size(thread, end.file, count, end.offset)
    done = 0
    while done < count and source.pipe.buffers:
        data = source.pipe.read(min(count - done, _CHUNK))
        pushed, error = await push(thread, end.file, data, end.offset, bool(end.file.flags & O_NONBLOCK))
        end.advance(pushed)
        done += pushed
        if pushed < len(data):
            source.unread(data[pushed:])
            if error is not None and not done:
                raise error
            break
    return done


async def _file_to_pipe(thread: Thread, start: _Cursor, target: PipeFile, count: int, nonblocking: bool) -> int:
    source = start.file.seen_by(thread)
    while True:
        room = await wait_for_room(thread, target, nonblocking or bool(target.flags & O_NONBLOCK))
        try:
            data = source.try_read(min(count, room), start.offset)
        except WouldBlock:
            if nonblocking or source.flags & O_NONBLOCK:
                raise EAGAIN("nothing to read yet") from None
            await wait_ready(thread, source, READ_EVENTS)
            continue
        if data:
            target.pipe.write(data)
            start.advance(len(data))
        return len(data)


@syscall(276, errnos="EAGAIN EBADF EINVAL EPIPE")
async def tee(thread: Thread, in_fd: Fd, out_fd: Fd, count: Size, flags: Flags) -> int:
    """tee(2): EINVAL for flags, EBADF, EINVAL unless both are pipes, and different ones."""
    if flags & ~SPLICE_F_ALL:
        raise EINVAL(f"flags {flags:#x}")
    if not count:
        return 0
    source, target = readable_file(thread, in_fd), writable_file(thread, out_fd)
    if not isinstance(source, PipeFile) or not isinstance(target, PipeFile) or source.pipe is target.pipe:
        raise EINVAL("not two pipes")
    nonblocking = bool(flags & SPLICE_F_NONBLOCK or (source.flags | target.flags) & O_NONBLOCK)
    source.references += 1
    target.references += 1
    try:
        while True:
            if not await wait_for_data(thread, source, nonblocking):
                return 0
            room = await wait_for_room(thread, target, nonblocking)
            if source.pipe.buffers:
                return source.pipe.tee(target.pipe, min(count, room))
    finally:
        await drop(source)
        await drop(target)


@syscall(278, errnos="EAGAIN EBADF EFAULT EINVAL EPIPE")
async def vmsplice(thread: Thread, fd: Fd, vector: Pointer, count: Size, flags: Flags) -> int:
    """vmsplice(2): EINVAL for flags, EBADF unless it is a pipe; pages are copied, never lent."""
    if flags & ~SPLICE_F_ALL:
        raise EINVAL(f"flags {flags:#x}")
    file = thread.fds.get(fd)
    if not isinstance(file, PipeFile):
        raise EBADF(f"fd {fd} is no pipe")
    segments = thread.memory.read_iovec(vector, count)
    total = sum(length for _, length in segments)
    nonblocking = bool(flags & SPLICE_F_NONBLOCK or file.flags & O_NONBLOCK)
    if not total:
        return 0
    if not file.writes:
        return await read_into(thread, file, segments, total, nonblocking=nonblocking)
    file.references += 1
    try:
        room = await wait_for_room(thread, file, nonblocking)
        data = gather(thread.memory, segments, 0, min(total, room))
        if not data:
            raise EFAULT("buffer is not readable")
        return file.pipe.write(data)
    finally:
        await drop(file)
