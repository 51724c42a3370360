"""eventfd(2), timerfd_create(2), signalfd(2) and their variants."""

from __future__ import annotations

from asyncsentry.abi.eventfd_h import EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE
from asyncsentry.abi.fcntl_h import O_CLOEXEC, O_NONBLOCK
from asyncsentry.abi.poll_h import SIGSET_SIZE
from asyncsentry.abi.time_h import ITIMERSPEC
from asyncsentry.abi.timerfd_h import (
    TFD_CLOEXEC,
    TFD_NONBLOCK,
    TFD_TIMER_ABSTIME,
    TFD_TIMER_CANCEL_ON_SET,
)
from asyncsentry.clock import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
)
from asyncsentry.errnos import EINVAL, EPERM
from asyncsentry.fs.anon import ANON_INODE_FS, AnonInode
from asyncsentry.fs.eventfd import EventFile
from asyncsentry.fs.signalfd import SignalFile
from asyncsentry.fs.timerfd import TimerFile
from asyncsentry.syscalls.args import Fd, Flags, Int, Pointer, Size, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.timespec import read_interval, write_interval
from asyncsentry.tasks.credentials import CAP_WAKE_ALARM
from asyncsentry.tasks.thread import Thread
from asyncsentry.waiter import READABLE

_TIMER_CLOCKS = (CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
_ALARM_CLOCKS = (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
_SIGKILL_AND_SIGSTOP = 1 << 8 | 1 << 18


def _inode(thread: Thread) -> AnonInode:
    return AnonInode(ANON_INODE_FS, thread.kernel.allocate_inode())


# eventfd -----------------------------------------------------------------------------------------


@syscall(284, errnos="EMFILE ENFILE")
def eventfd(thread: Thread, value: UInt) -> int:
    """eventfd(2) as it was before it had flags."""
    return thread.fds.install(EventFile(_inode(thread), value, 0, False))


@syscall(290, errnos="EINVAL EMFILE ENFILE")
def eventfd2(thread: Thread, value: UInt, flags: Flags) -> int:
    """eventfd2(2): EFD_SEMAPHORE, EFD_NONBLOCK, EFD_CLOEXEC."""
    if flags & ~(EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC):
        raise EINVAL(f"flags {flags:#o}")
    file = EventFile(_inode(thread), value, flags & EFD_NONBLOCK, bool(flags & EFD_SEMAPHORE))
    return thread.fds.install(file, bool(flags & EFD_CLOEXEC))


# timerfd -----------------------------------------------------------------------------------------


@syscall(283, errnos="EINVAL EMFILE ENFILE EPERM")
def timerfd_create(thread: Thread, clock_id: Int, flags: Flags) -> int:
    """timerfd_create(2): EINVAL for flags and clock, EPERM for alarm clocks without CAP_WAKE_ALARM."""
    if flags & ~(TFD_NONBLOCK | TFD_CLOEXEC) or clock_id not in _TIMER_CLOCKS:
        raise EINVAL(f"clock {clock_id}, flags {flags:#o}")
    if clock_id in _ALARM_CLOCKS and not thread.credentials.has(CAP_WAKE_ALARM):
        raise EPERM("alarm clocks need CAP_WAKE_ALARM")
    file = TimerFile(_inode(thread), thread.kernel.clock, clock_id, flags)
    return thread.fds.install(file, bool(flags & TFD_CLOEXEC))


@syscall(286, errnos="EBADF ECANCELED EFAULT EINVAL",
         missing="TFD_TIMER_CANCEL_ON_SET never cancels: guests cannot set the clock")
def timerfd_settime(thread: Thread, fd: Fd, flags: Int, new: Pointer, old: Pointer) -> int:
    """timerfd_settime(2): EFAULT for the new time first, EINVAL for it and the flags, EBADF."""
    interval_ns, value_ns = read_interval(thread, new, ITIMERSPEC)
    if flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET):
        raise EINVAL(f"flags {flags:#x}")
    file = _timer(thread, fd)
    left_ns, old_interval_ns = file.get_time()
    file.set_time(value_ns, interval_ns, bool(flags & TFD_TIMER_ABSTIME))
    if old:
        write_interval(thread, old, ITIMERSPEC, old_interval_ns, left_ns)
    return 0


@syscall(287, errnos="EBADF EFAULT EINVAL")
def timerfd_gettime(thread: Thread, fd: Fd, current: Pointer) -> int:
    """timerfd_gettime(2)."""
    left_ns, interval_ns = _timer(thread, fd).get_time()
    write_interval(thread, current, ITIMERSPEC, interval_ns, left_ns)
    return 0


def _timer(thread: Thread, fd: int) -> TimerFile:
    file = thread.fds.get(fd)
    if not isinstance(file, TimerFile):
        raise EINVAL(f"fd {fd} is no timer")
    return file


# signalfd ----------------------------------------------------------------------------------------


@syscall(282, errnos="EBADF EFAULT EINVAL EMFILE ENFILE")
def signalfd(thread: Thread, fd: Fd, mask: Pointer, size: Size) -> int:
    """signalfd(2) as it was before it had flags."""
    return _signalfd(thread, fd, mask, size, 0)


@syscall(289, errnos="EBADF EFAULT EINVAL EMFILE ENFILE")
def signalfd4(thread: Thread, fd: Fd, mask: Pointer, size: Size, flags: Flags) -> int:
    """signalfd4(2): makes a descriptor for -1, else changes one's mask."""
    return _signalfd(thread, fd, mask, size, flags)


def _signalfd(thread: Thread, fd: int, address: int, size: int, flags: int) -> int:
    if size != SIGSET_SIZE:
        raise EINVAL(f"signal set of {size} bytes")
    mask = thread.memory.read_u64(address) & ~_SIGKILL_AND_SIGSTOP
    if flags & ~(O_NONBLOCK | O_CLOEXEC):
        raise EINVAL(f"flags {flags:#o}")
    if fd == -1:
        return thread.fds.install(SignalFile(_inode(thread), mask, flags), bool(flags & O_CLOEXEC))
    file = thread.fds.get(fd)
    if not isinstance(file, SignalFile):
        raise EINVAL(f"fd {fd} is no signalfd")
    file.mask = mask
    thread.signal_queue.notify(READABLE)
    return fd
