"""Timers of a process: setitimer(2), timer_create(2), and its limit of processor time.

A periodic timer is set going again only when its signal is taken from the queue, and then reports how many
periods passed meanwhile (the overrun): a guest that blocks the signal costs nothing. After Linux's
posix-timers.c and itimer.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncsentry.abi import signal_h, time_h
from asyncsentry.abi.resource_h import RLIM_INFINITY, RLIMIT_CPU
from asyncsentry.clock import CLOCK_MONOTONIC, NS_PER_SECOND
from asyncsentry.errnos import EAGAIN, EINVAL
from asyncsentry.tasks.cputime import process_total_ns
from asyncsentry.tasks.signals.send import send_to_process, send_to_thread
from asyncsentry.tasks.signals.siginfo import SigInfo
from asyncsentry.tasks.timebase import Alarm, ProcessCpuTime, SystemTime, TimeBase

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread

_OVERRUN_MAX = (1 << 31) - 1
_TIMERS_MAX = 32768
_UNHEARD_PERIOD_NS = 1_000_000
"""A timer whose signal nobody hears fires no more often than this."""


class IntervalTimer:
    """A timer that sends a signal, once or periodically. Subclasses say which."""

    def __init__(self, kernel: Kernel, base: TimeBase) -> None:
        self.base = base
        self.interval_ns = 0
        self.deadline_ns: int | None = None
        """When it expires next, or did if its signal still waits; ``None`` while it is not set."""
        self._alarm = Alarm(kernel, base, self._expired)
        self._queued: SigInfo | None = None

    def set(self, deadline_ns: int | None, interval_ns: int) -> None:
        """Sets it going, or (``None``) stops it; a signal of the old setting stays queued."""
        self._alarm.disarm()
        self._queued = None
        self.deadline_ns = deadline_ns
        self.interval_ns = interval_ns
        if deadline_ns is not None and self.is_audible:
            self._alarm.arm(deadline_ns)

    @property
    def is_audible(self) -> bool:
        """Whether anything happens when it expires."""
        return True

    def remaining(self) -> tuple[int, int]:
        """Gives the time to the next expiry (0 if there is none, at least 1 if there is) and the interval."""
        if self.deadline_ns is None:
            return 0, self.interval_ns
        remaining_ns = self.deadline_ns - self.base.now_ns()
        if remaining_ns <= 0 and self.interval_ns:
            remaining_ns %= self.interval_ns
        if remaining_ns <= 0 and not self.is_audible and not self.interval_ns:
            return 0, 0
        return max(1, remaining_ns), self.interval_ns

    def make_signal(self) -> SigInfo:
        """Gives the signal of one expiry."""
        raise NotImplementedError

    def send(self, info: SigInfo) -> bool:
        """Sends it; ``False`` if it was dropped."""
        raise NotImplementedError

    def signal_taken(self, info: SigInfo) -> None:
        """Goes on to the next period, now that the last one's signal is out of the queue."""
        if info is self._queued:
            self._queued = None
            self.note_overrun(info, self._next_period(0))

    def note_overrun(self, info: SigInfo, missed: int) -> None:
        """Hears how many periods passed while a signal was queued."""

    def _expired(self) -> None:
        info = self.make_signal()
        info.source = self
        if self.send(info):
            self._queued = info
            if not self.interval_ns:
                self.deadline_ns = None
        else:
            self._next_period(_UNHEARD_PERIOD_NS)

    def _next_period(self, at_least_ns: int) -> int:
        """Arms for the next expiry that is still to come; gives how many have been skipped."""
        if not self.interval_ns or self.deadline_ns is None:
            self.deadline_ns = None
            return 0
        now_ns = self.base.now_ns()
        periods = max(0, now_ns + at_least_ns - self.deadline_ns) // self.interval_ns + 1
        self.deadline_ns += periods * self.interval_ns
        self._alarm.arm(self.deadline_ns)
        return periods - 1


class ProcessInterval(IntervalTimer):
    """One of the three timers of setitimer(2)."""

    def __init__(self, process: Process, base: TimeBase, signo: int) -> None:
        super().__init__(process.kernel, base)
        self._process = process
        self._signo = signo

    def make_signal(self) -> SigInfo:
        """Gives SIGALRM, SIGVTALRM or SIGPROF from the kernel."""
        return SigInfo(self._signo, signal_h.SI_KERNEL)

    def send(self, info: SigInfo) -> bool:
        """Sends it to the process."""
        return send_to_process(self._process, info)


class Notification(NamedTuple):
    """What a timer does when it expires: struct sigevent, decoded."""

    notify: int = signal_h.SIGEV_SIGNAL
    signo: int = signal_h.SIGALRM
    value: int | None = None
    """What the handler is given; ``None`` for the timer's number."""
    thread: Thread | None = None
    """The one thread that gets the signal, SIGEV_THREAD_ID."""


class PosixTimer(IntervalTimer):
    """A timer made by timer_create(2)."""

    def __init__(self, process: Process, timer_id: int, base: TimeBase, clock_id: int, event: Notification) -> None:
        super().__init__(process.kernel, base)
        self.timer_id = timer_id
        self.clock_id = clock_id
        self.event = event
        self.overrun = 0
        """Periods missed before the last delivery, timer_getoverrun(2)."""
        self._process = process

    @property
    def is_audible(self) -> bool:
        """Whether it was made with another choice than SIGEV_NONE."""
        return self.event.notify != signal_h.SIGEV_NONE

    def make_signal(self) -> SigInfo:
        """Gives the signal asked for, with the timer's number and value."""
        value = self.timer_id if self.event.value is None else self.event.value
        return SigInfo(self.event.signo, signal_h.SI_TIMER, timerid=self.timer_id, value=value)

    def send(self, info: SigInfo) -> bool:
        """Sends it to the thread chosen with SIGEV_THREAD_ID, else to the process."""
        thread = self.event.thread
        if thread is None:
            return send_to_process(self._process, info)
        if thread.exit_status is not None:
            self.set(None, 0)
            return False
        return send_to_thread(thread, info)

    def describe(self) -> str:
        """Gives its lines of /proc/PID/timers, proc(5)."""
        event = self.event
        means = {signal_h.SIGEV_NONE: "none", signal_h.SIGEV_THREAD: "thread"}.get(event.notify, "signal")
        whom = f"pid.{self._process.pid}" if event.thread is None else f"tid.{event.thread.tid}"
        return (f"ID: {self.timer_id}\nsignal: {event.signo}/{event.value or 0:016x}\nnotify: {means}/{whom}\n"
                f"ClockID: {self.clock_id}\n")

    def note_overrun(self, info: SigInfo, missed: int) -> None:
        """Tells the handler, and timer_getoverrun(2) from now on."""
        self.overrun = info.overrun = min(missed, _OVERRUN_MAX)


class CpuLimit:
    """RLIMIT_CPU: SIGXCPU at the soft limit and each second from then on, SIGKILL at the hard one. getrlimit(2)."""

    __slots__ = ("_alarm", "_process")

    def __init__(self, process: Process) -> None:
        self._process = process
        self._alarm: Alarm | None = None

    def update(self) -> None:
        """Looks at the limit afresh: it, or the process, is new."""
        if self._alarm is not None:
            self._alarm.disarm()
        nearest = min(self._process.limits.get(RLIMIT_CPU))
        if nearest == RLIM_INFINITY:
            return
        if self._alarm is None:
            self._alarm = Alarm(self._process.kernel, ProcessCpuTime(self._process), self._reached)
        self._alarm.arm(max(1, nearest) * NS_PER_SECOND)

    def stop(self) -> None:
        """Forgets the limit: the process ends."""
        if self._alarm is not None:
            self._alarm.disarm()

    def _reached(self) -> None:
        process = self._process
        soft, hard = process.limits.get(RLIMIT_CPU)
        used = process_total_ns(process) // NS_PER_SECOND
        if used >= hard:
            send_to_process(process, SigInfo(signal_h.SIGKILL, signal_h.SI_KERNEL))
            return
        if used >= soft:
            send_to_process(process, SigInfo(signal_h.SIGXCPU, signal_h.SI_KERNEL))
            process.limits.set(RLIMIT_CPU, min(used + 1, hard), hard)  # as Linux does: the next one in a second
        self.update()


class ProcessTimers:
    """All timers of a process."""

    __slots__ = ("_intervals", "_next_id", "_process", "cpu_limit", "posix")

    def __init__(self, process: Process) -> None:
        self._process = process
        self._intervals: dict[int, ProcessInterval] = {}
        self.posix: dict[int, PosixTimer] = {}
        self._next_id = 0
        self.cpu_limit = CpuLimit(process)

    def interval(self, which: int) -> ProcessInterval:
        """Gives one of the timers of setitimer(2), made at first use."""
        timer = self._intervals.get(which)
        if timer is None:
            timer = self._intervals[which] = self._make_interval(which)
        return timer

    def _make_interval(self, which: int) -> ProcessInterval:
        process = self._process
        if which == time_h.ITIMER_REAL:
            real = SystemTime(process.kernel.clock, CLOCK_MONOTONIC)
            return ProcessInterval(process, real, signal_h.SIGALRM)
        # The host does not tell user from system time apart for us, so both count the same.
        signo = {time_h.ITIMER_VIRTUAL: signal_h.SIGVTALRM, time_h.ITIMER_PROF: signal_h.SIGPROF}.get(which)
        if signo is None:
            raise EINVAL(f"no interval timer {which}")
        return ProcessInterval(process, ProcessCpuTime(process), signo)

    def create(self, base: TimeBase, clock_id: int, event: Notification) -> PosixTimer:
        """Makes a timer. EAGAIN if there are too many."""
        if len(self.posix) >= _TIMERS_MAX:
            raise EAGAIN(f"{_TIMERS_MAX} timers")
        timer_id = self._next_id
        while timer_id in self.posix:
            timer_id = (timer_id + 1) % (_OVERRUN_MAX + 1)
        self._next_id = (timer_id + 1) % (_OVERRUN_MAX + 1)
        timer = PosixTimer(self._process, timer_id, base, clock_id, event)
        self.posix[timer_id] = timer
        return timer

    def get(self, timer_id: int) -> PosixTimer:
        """Finds a timer; EINVAL if there is none."""
        try:
            return self.posix[timer_id]
        except KeyError:
            raise EINVAL(f"no timer {timer_id}") from None

    def delete(self, timer_id: int) -> None:
        """Removes a timer; EINVAL if there is none."""
        self.get(timer_id).set(None, 0)
        del self.posix[timer_id]

    def reset_on_exec(self) -> None:
        """Removes what timer_create(2) made; the timers of setitimer(2) go on, execve(2)."""
        for timer_id in tuple(self.posix):
            self.delete(timer_id)
        self._next_id = 0

    def release(self) -> None:
        """Stops everything: the process ends."""
        self.reset_on_exec()
        self.cpu_limit.stop()
        for timer in self._intervals.values():
            timer.set(None, 0)
