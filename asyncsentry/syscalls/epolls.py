"""epoll_create(2), epoll_ctl(2), epoll_wait(2) and their variants."""

from __future__ import annotations

from collections.abc import Awaitable

from asyncsentry.abi.epoll_h import (
    EP_MAX_EVENTS,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLL_EVENT,
)
from asyncsentry.abi.fcntl_h import O_PATH
from asyncsentry.errnos import EBADF, EFAULT, EINVAL, TimedOut
from asyncsentry.fs.anon import ANON_INODE_FS, AnonInode
from asyncsentry.fs.epoll import EpollFile, check_pollable
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.file import File
from asyncsentry.syscalls.args import Fd, Flags, Int, Pointer, Size
from asyncsentry.syscalls.polling import deadline_after, read_signal_mask, read_timeout
from asyncsentry.syscalls.registry import Restart, syscall
from asyncsentry.tasks.thread import Thread
from asyncsentry.waiter import READABLE


@syscall(213, errnos="EINVAL EMFILE ENFILE")
def epoll_create(thread: Thread, size: Int) -> int:
    """epoll_create(2): the size only has to be positive."""
    if size <= 0:
        raise EINVAL(f"size {size}")
    return _create(thread, 0)


@syscall(291, errnos="EINVAL EMFILE ENFILE")
def epoll_create1(thread: Thread, flags: Flags) -> int:
    """epoll_create1(2)."""
    if flags & ~EPOLL_CLOEXEC:
        raise EINVAL(f"flags {flags:#o}")
    return _create(thread, flags)


def _create(thread: Thread, flags: int) -> int:
    file = EpollFile(AnonInode(ANON_INODE_FS, thread.kernel.allocate_inode()))
    return thread.fds.install(file, bool(flags & EPOLL_CLOEXEC))


@syscall(233, errnos="EBADF EEXIST EFAULT EINVAL ELOOP ENOENT EPERM")
def epoll_ctl(thread: Thread, epfd: Fd, operation: Int, fd: Fd, event: Pointer) -> int:
    """epoll_ctl(2): EFAULT for the event first, then EBADF, EPERM, EINVAL, and what the operation says."""
    events = data = 0
    if operation != EPOLL_CTL_DEL:
        events, data = thread.memory.read_struct(event, EPOLL_EVENT)
    epoll, file = thread.fds.get(epfd), _target(thread, fd)
    check_pollable(file)
    if file is epoll or not isinstance(epoll, EpollFile):
        raise EINVAL(f"fd {epfd} is no epoll instance that takes fd {fd}")
    if operation == EPOLL_CTL_ADD:
        epoll.add(fd, file, thread, events, data)
    elif operation == EPOLL_CTL_MOD:
        epoll.modify(fd, file, events, data)
    elif operation == EPOLL_CTL_DEL:
        epoll.remove(fd, file)
    else:
        raise EINVAL(f"operation {operation}")
    return 0


def _target(thread: Thread, fd: int) -> File:
    file = thread.fds.get(fd)
    if file.flags & O_PATH:
        raise EBADF(f"fd {fd} is only a path")
    return file


@syscall(232, errnos="EBADF EFAULT EINTR EINVAL", restart=Restart.EINTR)
def epoll_wait(thread: Thread, epfd: Fd, events: Pointer, limit: Int, timeout_ms: Int) -> int | Awaitable[int]:
    """epoll_wait(2): EINVAL for the limit, EBADF, EINVAL for another kind of file."""
    deadline_ns = deadline_after(thread, None if timeout_ms < 0 else timeout_ms * 1_000_000)
    return _wait(thread, epfd, events, limit, deadline_ns)


@syscall(281, errnos="EBADF EFAULT EINTR EINVAL", restart=Restart.EINTR)
async def epoll_pwait(thread: Thread, epfd: Fd, events: Pointer, limit: Int, timeout_ms: Int, mask: Pointer,
                      size: Size) -> int:
    """epoll_pwait(2): with a signal mask for the wait."""
    with thread.temporary_signal_mask(read_signal_mask(thread, mask, size)):
        deadline_ns = deadline_after(thread, None if timeout_ms < 0 else timeout_ms * 1_000_000)
        answer = _wait(thread, epfd, events, limit, deadline_ns)
        return answer if isinstance(answer, int) else await answer


@syscall(441, errnos="EBADF EFAULT EINTR EINVAL", restart=Restart.EINTR)
async def epoll_pwait2(thread: Thread, epfd: Fd, events: Pointer, limit: Int, timespec: Pointer, mask: Pointer,
                       size: Size) -> int:
    """epoll_pwait2(2): with a timeout in nanoseconds."""
    deadline_ns = deadline_after(thread, read_timeout(thread, timespec))
    with thread.temporary_signal_mask(read_signal_mask(thread, mask, size)):
        answer = _wait(thread, epfd, events, limit, deadline_ns)
        return answer if isinstance(answer, int) else await answer


def _wait(thread: Thread, epfd: int, address: int, limit: int, deadline_ns: int | None) -> int | Awaitable[int]:
    """Gives how many events there are now, or the coroutine of a wait for some."""
    if not 0 < limit <= EP_MAX_EVENTS:
        raise EINVAL(f"room for {limit} events")
    epoll = thread.fds.get(epfd)
    if not isinstance(epoll, EpollFile):
        raise EINVAL(f"fd {epfd} is no epoll instance")
    found = _report(thread, epoll, address, limit)
    if not found and (deadline_ns != 0 or thread.interrupt_pending):
        return _wait_for_events(thread, epoll, address, limit, deadline_ns)
    return found


async def _wait_for_events(thread: Thread, epoll: EpollFile, address: int, limit: int, deadline_ns: int | None) -> int:
    found = 0
    epoll.references += 1
    try:
        while not found:
            await thread.block(epoll.queue, READABLE, deadline_ns, exclusive=True)
            found = _report(thread, epoll, address, limit)
    except TimedOut:
        return _report(thread, epoll, address, limit)
    finally:
        epoll.wake_next()
        await drop(epoll)
    return found


def _report(thread: Thread, epoll: EpollFile, address: int, limit: int) -> int:
    """Copies what is ready to the guest; events that cannot be copied stay ready."""
    found = epoll.find_ready(limit)
    if not found:
        return 0
    rows = b"".join(EPOLL_EVENT.pack(events, item.data) for item, events in found)
    arrived = thread.memory.write_some(address, rows) // EPOLL_EVENT.size
    if not arrived:
        raise EFAULT("no room for events")
    epoll.reported(found[:arrived])
    return arrived
