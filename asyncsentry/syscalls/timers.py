"""Timers that send signals: setitimer(2), alarm(2), timer_create(2)."""

from __future__ import annotations

from asyncsentry import clock as clocks
from asyncsentry.abi import signal_h
from asyncsentry.abi import time_h as abi
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import EINVAL, EOPNOTSUPP, EPERM, LinuxError
from asyncsentry.syscalls.args import Flags, Int, Pointer, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.timespec import read_interval, write_interval
from asyncsentry.tasks.credentials import CAP_WAKE_ALARM
from asyncsentry.tasks.thread import Thread
from asyncsentry.tasks.timebase import base_for_clock
from asyncsentry.tasks.timers import Notification

_TIMERLESS_CLOCKS = (clocks.CLOCK_MONOTONIC_RAW, clocks.CLOCK_REALTIME_COARSE, clocks.CLOCK_MONOTONIC_COARSE)
_ALARM_CLOCKS = (clocks.CLOCK_REALTIME_ALARM, clocks.CLOCK_BOOTTIME_ALARM)
_NOTIFICATIONS = (
    signal_h.SIGEV_SIGNAL, signal_h.SIGEV_NONE, signal_h.SIGEV_THREAD, signal_h.SIGEV_SIGNAL | signal_h.SIGEV_THREAD_ID,
)  # fmt: skip


@syscall(36, errnos="EFAULT EINVAL")
def getitimer(thread: Thread, which: Int, current: Pointer) -> int:
    """getitimer(2)."""
    remaining_ns, interval_ns = thread.process.timers.interval(which).remaining()
    write_interval(thread, current, abi.ITIMERVAL, interval_ns, remaining_ns)
    return 0


@syscall(38, errnos="EFAULT EINVAL")
def setitimer(thread: Thread, which: Int, new: Pointer, old: Pointer) -> int:
    """setitimer(2): a null ``new`` stops the timer, which Linux still puts up with."""
    interval_ns, value_ns = read_interval(thread, new, abi.ITIMERVAL) if new else (0, 0)
    timer = thread.process.timers.interval(which)
    old_remaining_ns, old_interval_ns = timer.remaining()
    timer.set(timer.base.now_ns() + value_ns if value_ns else None, interval_ns)
    if old:
        write_interval(thread, old, abi.ITIMERVAL, old_interval_ns, old_remaining_ns)
    return 0


@syscall(37)
def alarm(thread: Thread, seconds: UInt) -> int:
    """alarm(2): gives what was left of the last one, rounded to seconds but not to none."""
    timer = thread.process.timers.interval(abi.ITIMER_REAL)
    remaining_ns, _ = timer.remaining()
    timer.set(timer.base.now_ns() + seconds * NS_PER_SECOND if seconds else None, 0)
    whole, fraction = divmod(remaining_ns, NS_PER_SECOND)
    return whole + (fraction >= NS_PER_SECOND // 2 or (not whole and fraction > 0))


@syscall(222, errnos="EAGAIN EFAULT EINVAL EOPNOTSUPP EPERM")
def timer_create(thread: Thread, clock_id: Int, event: Pointer, timer_id: Pointer) -> int:
    """timer_create(2): without an event SIGALRM, with the timer's number as value."""
    fields = thread.memory.read_struct(event, signal_h.SIGEVENT) if event else None
    base = base_for_clock(thread, clock_id)
    if clock_id in _TIMERLESS_CLOCKS:
        raise EOPNOTSUPP(f"no timers on clock {clock_id}")
    if clock_id in _ALARM_CLOCKS and not thread.credentials.has(CAP_WAKE_ALARM):
        raise EPERM("only CAP_WAKE_ALARM may wake the system")
    timers = thread.process.timers
    timer = timers.create(base, clock_id, _notification(thread, *fields) if fields else Notification())
    try:
        thread.memory.write_i32(timer_id, timer.timer_id)
    except LinuxError:
        timers.delete(timer.timer_id)
        raise
    return 0


def _notification(thread: Thread, value: int, signo: int, notify: int, tid: int) -> Notification:
    """Checks a sigevent; EINVAL if it makes no sense."""
    if notify not in _NOTIFICATIONS:
        raise EINVAL(f"notification {notify}")
    if notify != signal_h.SIGEV_NONE and not 1 <= signo <= signal_h.NSIG:
        raise EINVAL(f"no signal {signo}")
    target = None
    if notify & signal_h.SIGEV_THREAD_ID:
        target = thread.process.threads.get(tid)
        if target is None:
            raise EINVAL(f"no thread {tid} in this process")
    return Notification(notify, signo, value, target)


@syscall(223, errnos="EFAULT EINVAL")
def timer_settime(thread: Thread, timer_id: Int, flags: Flags, new: Pointer, old: Pointer) -> int:
    """timer_settime(2)."""
    if not new:
        raise EINVAL("no new setting")
    interval_ns, value_ns = read_interval(thread, new, abi.ITIMERSPEC)
    timer = thread.process.timers.get(timer_id)
    old_remaining_ns, old_interval_ns = timer.remaining()
    if value_ns:
        start_ns = 0 if flags & abi.TIMER_ABSTIME else timer.base.now_ns()
        timer.set(start_ns + value_ns, interval_ns)
    else:
        timer.set(None, 0)
    timer.overrun = 0
    if old:
        write_interval(thread, old, abi.ITIMERSPEC, old_interval_ns, old_remaining_ns)
    return 0


@syscall(224, errnos="EFAULT EINVAL")
def timer_gettime(thread: Thread, timer_id: Int, current: Pointer) -> int:
    """timer_gettime(2)."""
    remaining_ns, interval_ns = thread.process.timers.get(timer_id).remaining()
    write_interval(thread, current, abi.ITIMERSPEC, interval_ns, remaining_ns)
    return 0


@syscall(225, errnos="EINVAL")
def timer_getoverrun(thread: Thread, timer_id: Int) -> int:
    """timer_getoverrun(2)."""
    return thread.process.timers.get(timer_id).overrun


@syscall(226, errnos="EINVAL")
def timer_delete(thread: Thread, timer_id: Int) -> int:
    """timer_delete(2)."""
    thread.process.timers.delete(timer_id)
    return 0
