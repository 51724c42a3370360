"""Moving bytes between guest memory and files: the one loop of try, block, try again.

Everything that may have to wait for a file comes through :func:`retry`; reads and writes through
:func:`read_into` and :func:`write_from`, which also know what a half-finished transfer returns: once a byte
has moved, an error, a signal or a bad address ends the call with the count so far, as in Linux's read(2)
and write(2). Handlers keep a straight path of their own in front of these and only come here when it
does not lead to the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import O_APPEND, O_DSYNC, O_NONBLOCK, O_PATH, O_SYNC, O_WRONLY
from asyncsentry.abi.resource_h import RLIM_INFINITY, RLIMIT_FSIZE
from asyncsentry.abi.stat_h import S_IFREG
from asyncsentry.abi.uio_h import MAX_RW_COUNT
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.notify import IN_ACCESS, IN_MODIFY, notify_file
from asyncsentry.waiter import POLLERR, POLLHUP, POLLRDHUP, READABLE, WRITABLE

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.memory.manager import MemoryManager
    from asyncsentry.tasks.thread import Thread

Result = TypeVar("Result")
Segments = Sequence[tuple[int, int]]
"""Pieces of guest memory: (address, length) each."""

USER_MEMORY_END = (1 << 47) - 4096
"""TASK_SIZE_MAX: a buffer that reaches beyond is refused before anything is done."""
CHUNK = 1 << 20
"""Most bytes held for one transfer at a time."""
_RETRY_CHUNK = 1 << 18
"""Most bytes offered again after a stream took only a part, so that a long write is not copied over and over."""
_CHUNKS_PER_TURN = 16
"""Chunks moved before other guests get a turn."""
NOT_READABLE = O_WRONLY | O_PATH
"""A file with one of these bits cannot be read (access mode 3 has no access at all)."""
_WRITE_BITS = 3 | O_PATH
READ_EVENTS = READABLE | POLLHUP | POLLERR | POLLRDHUP
WRITE_EVENTS = WRITABLE | POLLHUP | POLLERR
SIGPIPE, SIGXFSZ = 13, 25


def readable_file(thread: Thread, fd: int) -> File:
    """Finds a file open for reading; EBADF otherwise."""
    file = thread.fds.files.get(fd)
    if file is None or file.flags & NOT_READABLE:
        raise errnos.EBADF(f"fd {fd} is not open for reading")
    return file


def writable_file(thread: Thread, fd: int) -> File:
    """Finds a file open for writing; EBADF otherwise."""
    file = thread.fds.files.get(fd)
    if file is None or not 1 <= file.flags & _WRITE_BITS <= 2:
        raise errnos.EBADF(f"fd {fd} is not open for writing")
    return file


def clamp_count(count: int) -> int:
    """Caps a count at what one call moves; EINVAL for a negative ``ssize_t``."""
    if count >> 63:
        raise errnos.EINVAL("negative count")
    return min(count, MAX_RW_COUNT)


def buffer_count(address: int, count: int) -> int:
    """Caps the length of a buffer at what one call moves; EFAULT if it cannot lie in user memory, access_ok()."""
    if address + count > USER_MEMORY_END:
        raise errnos.EFAULT("the buffer is outside of user memory")
    return min(count, MAX_RW_COUNT)


def timeout_deadline(thread: Thread, timeout_ns: int | None) -> int | None:
    """Gives the moment on CLOCK_MONOTONIC when a wait that may take ``timeout_ns`` ends."""
    return None if timeout_ns is None else thread.kernel.clock.now_ns() + timeout_ns


async def wait_ready(thread: Thread, file: File, events: int, deadline_ns: int | None = None,
                     exclusive: bool = False) -> None:
    """Blocks until the file reports any of ``events``; EAGAIN at the deadline.

    A wait that has a deadline (SO_RCVTIMEO, SO_SNDTIMEO) is never restarted after a signal, signal(7).
    Call it right after a failed try, with no ``await`` between. Who waits exclusively calls :func:`wake_next` after
    the next try.
    """
    try:
        await thread.block(file.queue, events, deadline_ns, exclusive)
    except errnos.TimedOut:
        raise errnos.EAGAIN("timed out") from None
    except errnos.Interrupted:
        if deadline_ns is not None:
            raise errnos.EINTR("interrupted") from None
        raise


def wake_next(file: File, events: int) -> None:
    """Passes an exclusive wake-up on if something is left to do for others."""
    if file.wakes_one and file.poll() & events:
        file.queue.notify(events)


async def retry(thread: Thread, file: File, attempt: Callable[[], Result], events: int, *, nonblocking: bool = False,
                timeout_ns: int | None = None) -> Result:
    """Calls ``attempt`` until it does not raise WouldBlock, waiting for ``events`` in between.

    For calls that do one thing or nothing (accept(2), recvmsg(2)). ``nonblocking`` is O_NONBLOCK or
    MSG_DONTWAIT: EAGAIN instead of waiting.
    """
    try:
        return attempt()
    except errnos.WouldBlock:
        if nonblocking:
            raise errnos.EAGAIN("not ready") from None
    deadline_ns = timeout_deadline(thread, timeout_ns)
    file.references += 1
    try:
        while True:
            await wait_ready(thread, file, events, deadline_ns)
            try:
                return attempt()
            except errnos.WouldBlock:
                continue
    finally:
        await drop(file)


# Guest memory ------------------------------------------------------------------------------------


def scatter(memory: MemoryManager, segments: Segments, skip: int, data: bytes) -> int:
    """Copies ``data`` to the segments from their byte ``skip`` on; gives how much was writable."""
    done = 0
    for address, length in segments:
        if skip >= length:
            skip -= length
            continue
        piece = data[done : done + length - skip]
        copied = memory.write_some(address + skip, piece)
        done += copied
        if copied < len(piece) or done == len(data):
            break
        skip = 0
    return done


def gather(memory: MemoryManager, segments: Segments, skip: int, count: int) -> bytes:
    """Copies up to ``count`` bytes of the segments from their byte ``skip`` on; less if not all is readable."""
    if len(segments) == 1:
        return memory.read_some(segments[0][0] + skip, count)
    pieces: list[bytes] = []
    for address, length in segments:
        if skip >= length:
            skip -= length
            continue
        wanted = min(length - skip, count)
        piece = memory.read_some(address + skip, wanted)
        pieces.append(piece)
        count -= len(piece)
        if len(piece) < wanted or not count:
            break
        skip = 0
    return b"".join(pieces)


# Reading -----------------------------------------------------------------------------------------


async def read_into(thread: Thread, file: File, segments: Segments, total: int, offset: int | None = None,
                    nonblocking: bool | None = None) -> int:
    """Reads up to ``total`` bytes of a file into the segments: the whole of read(2) after its checks."""
    if nonblocking is None:
        nonblocking = bool(file.flags & O_NONBLOCK)
    file.references += 1
    try:
        done = await _read_chunks(thread, file.seen_by(thread), segments, total, offset, nonblocking)
        if done and thread.kernel.inotify.watches:
            notify_file(file, IN_ACCESS)
        return done
    finally:
        await drop(file)


async def _read_chunks(thread: Thread, file: File, segments: Segments, total: int, offset: int | None,
                       nonblocking: bool) -> int:
    done = turns = 0
    while True:
        wanted = min(total - done, CHUNK)
        try:
            data = await _read_chunk(thread, file, wanted, offset, nonblocking or bool(done))
        except (errnos.LinuxError, errnos.Interrupted):
            if done:
                return done
            raise
        copied = scatter(thread.memory, segments, done, data)
        done += copied
        if copied < len(data):
            if offset is None:
                file.unread(data[copied:])
            if not done:
                raise errnos.EFAULT("buffer is not writable")
            return done
        if len(data) < wanted or done == total:
            return done
        if offset is not None:
            offset += copied
        turns += 1
        if turns % _CHUNKS_PER_TURN == 0:
            await asyncio.sleep(0)
            if thread.is_dying:
                return done


async def _read_chunk(thread: Thread, file: File, count: int, offset: int | None, nonblocking: bool) -> bytes:
    try:
        return file.try_read(count, offset)
    except errnos.WouldBlock:
        if nonblocking:
            raise errnos.EAGAIN("nothing to read yet") from None
    if not count:
        return b""
    deadline_ns = timeout_deadline(thread, file.read_timeout_ns)
    while True:
        await wait_ready(thread, file, READ_EVENTS, deadline_ns, file.wakes_one)
        try:
            data = file.try_read(count, offset)
        except errnos.WouldBlock:
            continue
        wake_next(file, READABLE)
        return data


# Writing -----------------------------------------------------------------------------------------


def raise_signal(thread: Thread, signo: int) -> None:
    """Sends the calling thread a signal for something its own call did."""
    thread.raise_signal(signo)


def allowed_size(thread: Thread, file: File, count: int, offset: int | None) -> int:
    """Cuts a write to a regular file short at RLIMIT_FSIZE; SIGXFSZ and EFBIG if nothing may be written."""
    limit = thread.process.limits.soft(RLIMIT_FSIZE)
    if limit == RLIM_INFINITY or file.inode is None or file.inode.kind != S_IFREG or not count:
        return count
    start = file.position if offset is None else offset
    if file.flags & O_APPEND:
        start = file.inode.stat().size
    if start >= limit:
        raise_signal(thread, SIGXFSZ)
        raise errnos.EFBIG(f"file size limit of {limit} bytes")
    return min(count, limit - start)


async def write_from(thread: Thread, file: File, segments: Segments, total: int, offset: int | None = None,
                     nonblocking: bool | None = None, done: int = 0) -> int:
    """Writes ``total`` bytes of the segments to a file: the whole of write(2) after its checks.

    ``done`` bytes of them were written before; errors then only end the call.
    """
    if nonblocking is None:
        nonblocking = bool(file.flags & O_NONBLOCK)
    file.references += 1
    try:
        done = await _write_chunks(thread, file, segments, total, offset, nonblocking, done)
        if done and thread.kernel.inotify.watches:
            notify_file(file, IN_MODIFY)
        if done and file.flags & O_DSYNC and file.seekable:
            await file.sync(data_only=file.flags & O_SYNC != O_SYNC)
        return done
    finally:
        await drop(file)


async def _write_chunks(thread: Thread, file: File, segments: Segments, total: int, offset: int | None,
                        nonblocking: bool, done: int) -> int:
    if not done:
        total = allowed_size(thread, file, total, offset)
    turns = 0
    while True:
        wanted = min(total - done, CHUNK)
        data = gather(thread.memory, segments, done, wanted)
        if wanted and not data:
            if done:
                return done
            raise errnos.EFAULT("buffer is not readable")
        pushed, error = await push(thread, file, data, None if offset is None else offset + done, nonblocking)
        done += pushed
        if error is not None and not done:
            raise error
        if pushed < wanted or done == total:
            return done
        turns += 1
        if turns % _CHUNKS_PER_TURN == 0:
            await asyncio.sleep(0)
            if thread.is_dying:
                return done


async def push(thread: Thread, file: File, data: bytes, offset: int | None,
               nonblocking: bool) -> tuple[int, Exception | None]:
    """Writes all of ``data``, waiting for room as often as it takes; gives how much went and what ended it early.

    The caller holds a reference to the file. EPIPE comes with SIGPIPE, also after a part was written.
    """
    file = file.seen_by(thread)
    deadline_ns = timeout_deadline(thread, file.write_timeout_ns)
    done = turns = 0
    has_waited = False
    try:
        while True:
            rest = data[done : done + _RETRY_CHUNK] if done else data
            try:
                written = file.try_write(rest, None if offset is None else offset + done)
            except errnos.WouldBlock:
                if nonblocking:
                    raise errnos.EAGAIN("no room yet") from None
                await wait_ready(thread, file, WRITE_EVENTS, deadline_ns, file.wakes_one)
                has_waited = True
                continue
            if has_waited:
                wake_next(file, WRITABLE)
            done += written
            if done == len(data) or not written or file.takes_one_write:
                return done, None
            turns += 1
            if turns % _CHUNKS_PER_TURN == 0:
                await asyncio.sleep(0)
                if thread.is_dying:
                    return done, None
    except errnos.EPIPE as error:
        if file.raises_sigpipe:
            raise_signal(thread, SIGPIPE)
        return done, error
    except (errnos.LinuxError, errnos.Interrupted) as error:
        return done, error
