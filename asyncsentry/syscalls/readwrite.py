"""read(2), write(2) and their vectored and positioned kin.

These are the calls programs make most, so the straight path (all there at once, one piece, no odd flag) of the
plain ones is written out in them and needs no coroutine; for anything else they give that of ``transfer.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from asyncsentry.abi.fcntl_h import O_APPEND, O_DSYNC
from asyncsentry.abi.resource_h import RLIM_INFINITY, RLIMIT_FSIZE
from asyncsentry.abi.uio_h import (
    MAX_RW_COUNT,
    RWF_APPEND,
    RWF_DSYNC,
    RWF_NOAPPEND,
    RWF_NOWAIT,
    RWF_SUPPORTED,
    RWF_SYNC,
)
from asyncsentry.errnos import EBADF, EINVAL, EOPNOTSUPP, EPIPE, ESPIPE, WouldBlock
from asyncsentry.fs.notify import IN_ACCESS, IN_MODIFY, notify_file
from asyncsentry.syscalls.args import Buffer, Fd, Flags, Long, Pointer, Size
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.transfer import (
    CHUNK,
    NOT_READABLE,
    SIGPIPE,
    buffer_count,
    raise_signal,
    read_into,
    readable_file,
    writable_file,
    write_from,
)
from asyncsentry.tasks.thread import Thread

if TYPE_CHECKING:
    from asyncsentry.fs.file import File

READ_ERRNOS = "EAGAIN EBADF EFAULT EINTR EINVAL EIO EISDIR"
WRITE_ERRNOS = "EAGAIN EBADF EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC EPERM EPIPE"


@syscall(0, errnos=READ_ERRNOS)
def read(thread: Thread, fd: Fd, buffer: Buffer, count: Size) -> int | Awaitable[int]:
    """read(2): EBADF, then EFAULT for a buffer outside of user memory, then what the file says."""
    file = thread.fds.files.get(fd)
    if file is None or file.flags & NOT_READABLE:
        raise EBADF(f"fd {fd} is not open for reading")
    if count <= CHUNK:
        if (host_fd := file.host_fd) is not None:
            done = thread.memory.write_from_file(buffer, count, host_fd, file.position)
            file.position += done
            if thread.kernel.inotify.watches:
                notify_file(file, IN_ACCESS)
            return done
        try:
            data = file.try_read(count)
        except WouldBlock:
            return read_into(thread, file, ((buffer, count),), count)
        if thread.memory.write_some(buffer, data) == len(data):
            if thread.kernel.inotify.watches and data:
                notify_file(file, IN_ACCESS)
            return len(data)
        file.unread(data)
    total = buffer_count(buffer, count)
    return read_into(thread, file, ((buffer, total),), total)


@syscall(1, errnos=WRITE_ERRNOS)
def write(thread: Thread, fd: Fd, buffer: Buffer, count: Size) -> int | Awaitable[int]:
    """write(2): EBADF, then EFAULT for a buffer outside of user memory, then what the file says."""
    return _write_piece(thread, writable_file(thread, fd), buffer, count, None)


def _write_piece(thread: Thread, file: File, buffer: int, count: int, offset: int | None) -> int | Awaitable[int]:
    """Writes one buffer; the straight path is for what is whole, small and not limited or synchronous."""
    limited = file.seekable and (
        file.flags & O_DSYNC or thread.process.limits.soft(RLIMIT_FSIZE) != RLIM_INFINITY
    )
    written = 0
    if count <= CHUNK and not limited:
        data = thread.memory.read_some(buffer, count)
        if len(data) == count:
            try:
                written = file.try_write(data, offset)
            except WouldBlock:
                pass
            except EPIPE:
                if file.raises_sigpipe:
                    raise_signal(thread, SIGPIPE)
                raise
            if written == count or (written and file.takes_one_write):
                if thread.kernel.inotify.watches and written:
                    notify_file(file, IN_MODIFY)
                return written
    count = buffer_count(buffer, count)
    return write_from(thread, file, ((buffer, count),), count, offset, done=written)


@syscall(17, errnos=READ_ERRNOS + " ENXIO EOVERFLOW ESPIPE")
def pread64(thread: Thread, fd: Fd, buffer: Buffer, count: Size, offset: Long) -> int | Awaitable[int]:
    """pread64(2): EINVAL for a negative offset, EBADF, ESPIPE, EBADF if it is not open for reading."""
    file = _positioned(thread, fd, offset)
    if file.flags & NOT_READABLE:
        raise EBADF(f"fd {fd} is not open for reading")
    if count <= CHUNK:
        if (host_fd := file.host_fd) is not None:
            done = thread.memory.write_from_file(buffer, count, host_fd, offset)
            if thread.kernel.inotify.watches:
                notify_file(file, IN_ACCESS)
            return done
        data = file.try_read(count, offset)
        if thread.memory.write_some(buffer, data) == len(data):
            if thread.kernel.inotify.watches and data:
                notify_file(file, IN_ACCESS)
            return len(data)
    total = buffer_count(buffer, count)
    return read_into(thread, file, ((buffer, total),), total, offset)


@syscall(18, errnos=WRITE_ERRNOS + " ENXIO EOVERFLOW ESPIPE")
def pwrite64(thread: Thread, fd: Fd, buffer: Buffer, count: Size, offset: Long) -> int | Awaitable[int]:
    """pwrite64(2): EINVAL for a negative offset, EBADF, ESPIPE, EBADF if it is not open for writing."""
    _positioned(thread, fd, offset)
    return _write_piece(thread, writable_file(thread, fd), buffer, count, offset)


@syscall(19, errnos=READ_ERRNOS)
async def readv(thread: Thread, fd: Fd, vector: Pointer, count: Size) -> int:
    """readv(2): EBADF, then EINVAL and EFAULT for the vector; one read filled in order."""
    return await _read_vector(thread, readable_file(thread, fd), vector, count, None)


@syscall(20, errnos=WRITE_ERRNOS)
async def writev(thread: Thread, fd: Fd, vector: Pointer, count: Size) -> int:
    """writev(2): EBADF, then EINVAL and EFAULT for the vector; one write gathered in order."""
    return await _write_vector(thread, writable_file(thread, fd), vector, count, None)


@syscall(295, errnos=READ_ERRNOS + " ESPIPE")
async def preadv(thread: Thread, fd: Fd, vector: Pointer, count: Size, offset: Long) -> int:
    """preadv(2): pread(2) into several buffers."""
    _positioned(thread, fd, offset)
    return await _read_vector(thread, readable_file(thread, fd), vector, count, offset)


@syscall(296, errnos=WRITE_ERRNOS + " ESPIPE")
async def pwritev(thread: Thread, fd: Fd, vector: Pointer, count: Size, offset: Long) -> int:
    """pwritev(2): pwrite(2) from several buffers."""
    _positioned(thread, fd, offset)
    return await _write_vector(thread, writable_file(thread, fd), vector, count, offset)


@syscall(327, errnos=READ_ERRNOS + " EOPNOTSUPP ESPIPE")
async def preadv2(thread: Thread, fd: Fd, vector: Pointer, count: Size, offset: Long, unused: Long,
                  flags: Flags) -> int:
    """preadv2(2): offset -1 is the file's own position; RWF_NOWAIT makes it EAGAIN rather than wait."""
    place = None if offset == -1 else offset
    if place is not None:
        _positioned(thread, fd, place)
    file = readable_file(thread, fd)
    if flags & ~RWF_SUPPORTED or flags & (RWF_APPEND | RWF_NOAPPEND):
        raise EOPNOTSUPP(f"flags {flags:#x}")
    return await _read_vector(thread, file, vector, count, place, True if flags & RWF_NOWAIT else None)


@syscall(328, errnos=WRITE_ERRNOS + " EOPNOTSUPP ESPIPE")
async def pwritev2(thread: Thread, fd: Fd, vector: Pointer, count: Size, offset: Long, unused: Long,
                   flags: Flags) -> int:
    """pwritev2(2): as pwritev, with RWF_APPEND, RWF_NOAPPEND, RWF_DSYNC, RWF_SYNC and RWF_NOWAIT for this one call."""
    place = None if offset == -1 else offset
    if place is not None:
        _positioned(thread, fd, place)
    file = writable_file(thread, fd)
    if flags & ~RWF_SUPPORTED:
        raise EOPNOTSUPP(f"flags {flags:#x}")
    if flags & RWF_APPEND and flags & RWF_NOAPPEND:
        raise EINVAL("appending and not appending at once")
    written = await _write_flagged(thread, file, vector, count, place, flags)
    if written and flags & (RWF_DSYNC | RWF_SYNC) and file.seekable:
        await file.sync(data_only=not flags & RWF_SYNC)
    return written


async def _write_flagged(thread: Thread, file: File, vector: int, count: int, offset: int | None, flags: int) -> int:
    nonblocking = True if flags & RWF_NOWAIT else None
    if not file.seekable or not flags & (RWF_APPEND | RWF_NOAPPEND):
        return await _write_vector(thread, file, vector, count, offset, nonblocking)
    # Files look at their own O_APPEND; a write to a file with positions does not wait, so none sees it changed.
    before = file.flags
    file.flags = before | O_APPEND if flags & RWF_APPEND else before & ~O_APPEND
    try:
        return await _write_vector(thread, file, vector, count, offset, nonblocking)
    finally:
        file.flags = file.flags & ~O_APPEND | before & O_APPEND


def _positioned(thread: Thread, fd: int, offset: int) -> File:
    """Finds a file that has positions: EINVAL, EBADF and ESPIPE in Linux's order."""
    if offset < 0:
        raise EINVAL(f"offset {offset}")
    file = thread.fds.get(fd)
    if not file.seekable:
        raise ESPIPE(f"fd {fd} has no positions")
    return file


async def _read_vector(thread: Thread, file: File, vector: int, count: int, offset: int | None,
                       nonblocking: bool | None = None) -> int:
    segments = thread.memory.read_iovec(vector, count)
    total = min(sum(length for _, length in segments), MAX_RW_COUNT)
    return await read_into(thread, file, segments, total, offset, nonblocking)


async def _write_vector(thread: Thread, file: File, vector: int, count: int, offset: int | None,
                        nonblocking: bool | None = None) -> int:
    segments = thread.memory.read_iovec(vector, count)
    total = min(sum(length for _, length in segments), MAX_RW_COUNT)
    return await write_from(thread, file, segments, total, offset, nonblocking)
