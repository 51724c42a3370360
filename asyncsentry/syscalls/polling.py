"""poll(2), ppoll(2), select(2) and pselect6(2).

All four turn their arguments into a list of (file, events), wait in :func:`wait_any`, and differ in how
they report. As in Linux, select's and the p-calls' timeouts are written back with the time left, which is what
lets them be restarted; poll(2) restarts through restart_syscall(2) instead. fs/select.c.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Sequence
from functools import partial

from asyncsentry.abi.fcntl_h import O_PATH
from asyncsentry.abi.poll_h import POLLFD, SIGSET_ARGUMENT, SIGSET_SIZE, TIMESPEC, TIMEVAL
from asyncsentry.abi.resource_h import RLIMIT_NOFILE
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import EBADF, EFAULT, EINTR, EINVAL, ENOMEM, Interrupted, TimedOut
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.file import File
from asyncsentry.syscalls.args import Int, Pointer, Size, UInt
from asyncsentry.syscalls.registry import Restart, syscall
from asyncsentry.syscalls.timespec import read_timespec
from asyncsentry.tasks.thread import Thread
from asyncsentry.waiter import (
    ALWAYS,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
)

Interest = tuple[File | None, int]
"""A file and the events wanted of it; ``None`` for a descriptor that is not open."""

SELECT_SETS = (
    POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR,
    POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR,
    POLLPRI,
)
"""The events that put a descriptor in the read, write and except set: POLLIN_SET and kin, fs/select.c."""
_SET_MARKS = POLLIN | POLLOUT | POLLPRI
_SMALLEST_TABLE = 64
_POLL_MAX = 1 << 17
"""Descriptors one poll(2) may ask about, whatever RLIMIT_NOFILE says: a row costs us far more than it costs Linux."""
_LATEST_NS = (1 << 63) - 1
_REVENTS = struct.Struct("<h")


# Waiting -----------------------------------------------------------------------------------------


def poll_once(interests: Sequence[Interest]) -> list[int]:
    """Gives the events that hold now for each file."""
    return [
        POLLNVAL if file is None else file.poll() & (events | ALWAYS)
        for file, events in interests
    ]  # fmt: skip


async def wait_any(thread: Thread, interests: Sequence[Interest], deadline_ns: int | None) -> list[int]:
    """Waits until an event holds for any file or the deadline has passed; gives each file's events.

    A deadline of 0 does not wait at all. Raises Interrupted if a signal came first.
    """
    found = poll_once(interests)
    if any(found) or deadline_ns == 0:
        if not any(found) and thread.interrupt_pending:
            raise Interrupted
        return found
    files = [file for file, _ in interests if file is not None]
    for file in files:
        file.references += 1
    try:
        while True:
            queues = [(file.queue, events | ALWAYS) for file, events in interests if file is not None]
            await thread.block_any(queues, deadline_ns)
            found = poll_once(interests)
            if any(found):
                return found
    except TimedOut:
        return poll_once(interests)
    finally:
        for file in files:
            await drop(file)


def deadline_after(thread: Thread, timeout_ns: int | None) -> int | None:
    """Gives the deadline for :func:`wait_any` of a relative timeout: 0 for none at all, ``None`` for never."""
    if not timeout_ns:
        return timeout_ns
    return min(thread.kernel.clock.now_ns() + timeout_ns, _LATEST_NS)


def read_timeout(thread: Thread, address: int) -> int | None:
    """Reads a relative ``struct timespec`` in nanoseconds; ``None`` for a null pointer."""
    return read_timespec(thread, address) if address else None


def read_signal_mask(thread: Thread, address: int, size: int) -> int | None:
    """Reads a temporary signal mask; ``None`` for a null pointer, EINVAL for a size other than ours."""
    if not address:
        return None
    if size != SIGSET_SIZE:
        raise EINVAL(f"signal set of {size} bytes")
    return thread.memory.read_u64(address)


class TimeLeft:
    """Writes the rest of a relative timeout back to the guest, poll_select_finish()."""

    __slots__ = ("address", "deadline_ns", "thread", "unit_ns")

    def __init__(self, thread: Thread, address: int, deadline_ns: int | None, unit_ns: int = 1) -> None:
        self.thread = thread
        self.address = address
        self.deadline_ns = deadline_ns
        self.unit_ns = unit_ns
        """1 for ``struct timespec``, 1000 for ``struct timeval``."""

    def store(self) -> bool:
        """Writes it; ``False`` if the memory is read-only, which must not fail a finished call."""
        if not self.deadline_ns:
            return True
        left_ns = max(0, self.deadline_ns - self.thread.kernel.clock.now_ns())
        seconds, rest_ns = divmod(left_ns, NS_PER_SECOND)
        try:
            self.thread.memory.write_struct(self.address, TIMESPEC, seconds, rest_ns // self.unit_ns)
        except EFAULT:
            return False
        return True

    def store_interrupted(self) -> None:
        """Writes it before a restart, which would begin afresh without: then EINTR."""
        if not self.store():
            raise EINTR("interrupted, and the timeout cannot be updated") from None


# poll --------------------------------------------------------------------------------------------


@syscall(7, errnos="EFAULT EINTR EINVAL ENOMEM", restart=Restart.BLOCK)
def poll(thread: Thread, fds: Pointer, count: UInt, timeout_ms: Int) -> int | Awaitable[int]:
    """poll(2): EINVAL for more than RLIMIT_NOFILE descriptors, then EFAULT."""
    deadline_ns = deadline_after(thread, None if timeout_ms < 0 else timeout_ms * 1_000_000)
    table = _PollTable(thread, fds, count)
    found = poll_once(table.interests)
    if any(found) or (deadline_ns == 0 and not thread.interrupt_pending):
        return table.store(found)
    return _poll_until(table, deadline_ns)


async def _poll_until(table: _PollTable, deadline_ns: int | None) -> int:
    try:
        return table.store(await wait_any(table.thread, table.interests, deadline_ns))
    except Interrupted:
        table.thread.restart = partial(_poll_again, table.thread, table.address, len(table.entries), deadline_ns)
        raise


async def _poll_again(thread: Thread, address: int, count: int, deadline_ns: int | None) -> int:
    """Goes on with an interrupted poll, restart_syscall(2)."""
    return await _poll_until(_PollTable(thread, address, count), deadline_ns)


class _PollTable:
    """The ``struct pollfd`` array of one call, copied once."""

    __slots__ = ("address", "entries", "interests", "thread")

    def __init__(self, thread: Thread, address: int, count: int) -> None:
        if count > thread.process.limits.soft(RLIMIT_NOFILE):
            raise EINVAL(f"{count} descriptors")
        if count > _POLL_MAX:
            raise ENOMEM(f"{count} descriptors at once")
        self.thread = thread
        self.address = address
        table = thread.memory.read(address, count * POLLFD.size) if count else b""
        self.entries: list[tuple[int, int, int]] = list(POLLFD.iter_unpack(table))
        files = thread.fds.files
        self.interests: list[Interest] = [
            (_pollable(files.get(fd), thread), events & 0xFFFF) for fd, events, _ in self.entries if fd >= 0
        ]

    def store(self, found: list[int]) -> int:
        """Writes what was found and gives how many descriptors have something; negative ones have nothing.

        Only revents is ours to write, and of most entries it is 0 before and after.
        """
        rest = iter(found)
        ready = 0
        for index, (fd, _, stale) in enumerate(self.entries):
            revents = next(rest) if fd >= 0 else 0
            ready += bool(revents)
            if revents != stale:
                self.thread.memory.write(self.address + index * POLLFD.size + 6, _REVENTS.pack(revents))
        return ready


def _pollable(file: File | None, thread: Thread) -> File | None:
    return None if file is None or file.flags & O_PATH else file.seen_by(thread)


@syscall(271, errnos="EFAULT EINTR EINVAL ENOMEM", restart=Restart.NOHAND)
async def ppoll(thread: Thread, fds: Pointer, count: UInt, timespec: Pointer, mask: Pointer, size: Size) -> int:
    """ppoll(2): poll with a timespec and a signal mask for the wait."""
    deadline_ns = deadline_after(thread, read_timeout(thread, timespec))
    left = TimeLeft(thread, timespec, deadline_ns)
    with thread.temporary_signal_mask(read_signal_mask(thread, mask, size)):
        try:
            table = _PollTable(thread, fds, count)
            ready = table.store(await wait_any(thread, table.interests, deadline_ns))
        except Interrupted:
            left.store_interrupted()
            raise
    left.store()
    return ready


# select ------------------------------------------------------------------------------------------


@syscall(23, errnos="EBADF EFAULT EINTR EINVAL", restart=Restart.NOHAND)
async def select(thread: Thread, count: Int, read_set: Pointer, write_set: Pointer, except_set: Pointer,
                 timeval: Pointer) -> int:
    """select(2): the timeval is written back with the time left, as Linux does."""
    timeout_ns = None
    if timeval:
        seconds, microseconds = thread.memory.read_struct(timeval, TIMEVAL)
        seconds += microseconds // 1_000_000
        if seconds < 0 or microseconds < 0:
            raise EINVAL("negative timeout")
        timeout_ns = seconds * NS_PER_SECOND + microseconds % 1_000_000 * 1000
    deadline_ns = deadline_after(thread, timeout_ns)
    left = TimeLeft(thread, timeval, deadline_ns, unit_ns=1000)
    try:
        ready = await _select(thread, count, (read_set, write_set, except_set), deadline_ns)
    except Interrupted:
        left.store_interrupted()
        raise
    left.store()
    return ready


@syscall(270, errnos="EBADF EFAULT EINTR EINVAL", restart=Restart.NOHAND)
async def pselect6(thread: Thread, count: Int, read_set: Pointer, write_set: Pointer, except_set: Pointer,
                   timespec: Pointer, argument: Pointer) -> int:
    """pselect6(2): select with a timespec and a signal mask for the wait."""
    mask, size = thread.memory.read_struct(argument, SIGSET_ARGUMENT) if argument else (0, 0)
    deadline_ns = deadline_after(thread, read_timeout(thread, timespec))
    left = TimeLeft(thread, timespec, deadline_ns)
    with thread.temporary_signal_mask(read_signal_mask(thread, mask, size)):
        try:
            ready = await _select(thread, count, (read_set, write_set, except_set), deadline_ns)
        except Interrupted:
            left.store_interrupted()
            raise
    left.store()
    return ready


async def _select(thread: Thread, count: int, sets: tuple[int, int, int], deadline_ns: int | None) -> int:
    if count < 0:
        raise EINVAL(f"{count} descriptors")
    count = min(count, _table_size(thread, count))
    wanted = [_read_set(thread, address, count) for address in sets]
    interests = _select_interests(thread, wanted)
    found = await wait_any(thread, list(interests.values()), deadline_ns)
    results = [bytearray((count + 63) // 64 * 8) for _ in sets]
    ready = 0
    for (fd, (_, asked)), events in zip(interests.items(), found, strict=True):
        for result, set_events in zip(results, SELECT_SETS, strict=True):
            # Each set has an event of its own that is asked for only if the descriptor is in it.
            if asked & set_events & _SET_MARKS and events & set_events:
                result[fd // 8] |= 1 << fd % 8
                ready += 1
    for address, result in zip(sets, results, strict=True):
        if address:
            thread.memory.write(address, bytes(result))
    return ready


def _table_size(thread: Thread, count: int) -> int:
    """Gives how many descriptors the sets are looked at for: Linux's table, which doubles from 64 as it fills."""
    if count <= _SMALLEST_TABLE:
        return _SMALLEST_TABLE
    return max(_SMALLEST_TABLE, 1 << max(thread.fds.files, default=0).bit_length())


def _read_set(thread: Thread, address: int, count: int) -> list[int]:
    """Reads a set of ``count`` descriptors and gives its members, lowest first."""
    if not address:
        return []
    words = (count + 63) // 64
    members: list[int] = []
    for index, word in enumerate(struct.unpack(f"<{words}Q", thread.memory.read(address, words * 8))):
        while word:
            lowest = word & -word
            word ^= lowest
            members.append(index * 64 + lowest.bit_length() - 1)
    while members and members[-1] >= count:
        members.pop()
    return members


def _select_interests(thread: Thread, wanted: Sequence[Sequence[int]]) -> dict[int, Interest]:
    """Gives the file and the events of each descriptor in any of the sets; EBADF if one is not open."""
    files = thread.fds.files
    interests: dict[int, Interest] = {}
    for members, set_events in zip(wanted, SELECT_SETS, strict=True):
        for fd in members:
            file, events = interests.get(fd) or (_pollable(files.get(fd), thread), 0)
            if file is None:
                raise EBADF(f"fd {fd} is closed")
            interests[fd] = file, events | set_events
    return interests
