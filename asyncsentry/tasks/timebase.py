"""What timers and sleeps count: a system-wide clock, or the processor time of a process or thread.

An :class:`Alarm` calls back once its base has reached a deadline. Nobody tells us when processor time has
passed, so on those bases it looks again when it could have passed at the earliest, and more and more rarely
while the guest does not run. See clock_getres(2), clock_nanosleep(2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from asyncsentry import clock as clocks
from asyncsentry.abi import time_h as abi
from asyncsentry.errnos import EINVAL
from asyncsentry.tasks.cputime import process_total_ns, thread_cpu_ns

if TYPE_CHECKING:
    from asyncsentry.clock import Clock, Timer
    from asyncsentry.kernel import Kernel
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread

TIME_MAX_NS = (1 << 63) - 1
"""Later than any deadline, KTIME_MAX."""
_CPU_GRAIN_NS = 1_000_000
_IDLE_DELAY_MAX_NS = 256_000_000

SYSTEM_CLOCKS = frozenset((
    clocks.CLOCK_REALTIME, clocks.CLOCK_MONOTONIC, clocks.CLOCK_MONOTONIC_RAW, clocks.CLOCK_REALTIME_COARSE,
    clocks.CLOCK_MONOTONIC_COARSE, clocks.CLOCK_BOOTTIME, clocks.CLOCK_REALTIME_ALARM, clocks.CLOCK_BOOTTIME_ALARM,
    clocks.CLOCK_TAI,
))  # fmt: skip


class TimeBase(Protocol):
    """Something that has a time."""

    is_cpu: bool

    def now_ns(self) -> int:
        """Gives the time."""

    def shortest_wait_ns(self, remaining_ns: int) -> int:
        """Gives how long, on CLOCK_MONOTONIC, it takes at least until ``remaining_ns`` more have passed."""


class SystemTime:
    """A system-wide clock."""

    __slots__ = ("clock", "clock_id", "is_cpu")

    def __init__(self, clock: Clock, clock_id: int) -> None:
        self.clock = clock
        self.clock_id = clock_id
        self.is_cpu = False

    def now_ns(self) -> int:
        """Gives the clock's time."""
        return self.clock.now_ns(self.clock_id)

    def shortest_wait_ns(self, remaining_ns: int) -> int:
        """Gives the same: these clocks run alike."""
        return remaining_ns


class ProcessCpuTime:
    """The processor time of all threads of a process."""

    __slots__ = ("is_cpu", "process")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.is_cpu = True

    def now_ns(self) -> int:
        """Gives user and system time."""
        return process_total_ns(self.process)

    def shortest_wait_ns(self, remaining_ns: int) -> int:
        """Divides by the threads that may all run at once."""
        return remaining_ns // max(1, len(self.process.threads))


class ThreadCpuTime:
    """The processor time of one thread."""

    __slots__ = ("is_cpu", "thread")

    def __init__(self, thread: Thread) -> None:
        self.thread = thread
        self.is_cpu = True

    def now_ns(self) -> int:
        """Gives user and system time."""
        return sum(thread_cpu_ns(self.thread))

    def shortest_wait_ns(self, remaining_ns: int) -> int:
        """Gives the same: a thread uses no more than all of one CPU."""
        return remaining_ns


def base_for_clock(thread: Thread, clock_id: int) -> TimeBase:
    """Finds what a ``clockid_t`` of a guest means; EINVAL if it means nothing."""
    if clock_id in SYSTEM_CLOCKS:
        return SystemTime(thread.kernel.clock, clock_id)
    if clock_id == clocks.CLOCK_PROCESS_CPUTIME_ID:
        return ProcessCpuTime(thread.process)
    if clock_id == clocks.CLOCK_THREAD_CPUTIME_ID:
        return ThreadCpuTime(thread)
    if clock_id >= 0 or clock_id & abi.CPUCLOCK_CLOCK_MASK > abi.CPUCLOCK_SCHED:
        raise EINVAL(f"clock {clock_id}")
    return _cpu_clock_of(thread, ~(clock_id >> 3), bool(clock_id & abi.CPUCLOCK_PERTHREAD_MASK))


def _cpu_clock_of(thread: Thread, number: int, is_per_thread: bool) -> TimeBase:
    """Finds the clock a negative ``clockid_t`` names by the complement of a pid or tid; 0 is the caller."""
    if is_per_thread:
        other = thread.kernel.threads.get(number) if number else thread
        if other is None or other.process is not thread.process:
            raise EINVAL(f"no thread {number} in this process")
        return ThreadCpuTime(other)
    process = thread.kernel.processes.get(number) if number else thread.process
    if process is None:
        raise EINVAL(f"no process {number}")
    return ProcessCpuTime(process)


class Alarm:
    """Calls back once a time base has reached a deadline."""

    __slots__ = ("_base", "_callback", "_clock", "_deadline_ns", "_idle_delay_ns", "_seen_ns", "_timer")

    def __init__(self, kernel: Kernel, base: TimeBase, callback: Callable[[], None]) -> None:
        self._clock = kernel.clock
        self._base = base
        self._callback = callback
        self._deadline_ns = 0
        self._timer: Timer | None = None
        self._seen_ns = -1
        self._idle_delay_ns = _CPU_GRAIN_NS

    def arm(self, deadline_ns: int) -> None:
        """Sets (or changes) the deadline, on the base."""
        self.disarm()
        self._deadline_ns = min(deadline_ns, TIME_MAX_NS)
        self._schedule(self._base.now_ns())

    def disarm(self) -> None:
        """Forgets the deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, now_ns: int) -> None:
        wait_ns = self._base.shortest_wait_ns(max(0, self._deadline_ns - now_ns))
        if self._base.is_cpu:
            wait_ns = max(wait_ns, self._idle_delay(now_ns))
        self._timer = self._clock.call_at(self._clock.now_ns() + wait_ns, self._check)

    def _idle_delay(self, now_ns: int) -> int:
        """Doubles while the guest uses no processor time, so that an idle guest costs next to nothing."""
        if now_ns - self._seen_ns > _CPU_GRAIN_NS // 2:
            self._idle_delay_ns = _CPU_GRAIN_NS
        else:
            self._idle_delay_ns = min(self._idle_delay_ns * 2, _IDLE_DELAY_MAX_NS)
        self._seen_ns = now_ns
        return self._idle_delay_ns

    def _check(self) -> None:
        self._timer = None
        now_ns = self._base.now_ns()
        if now_ns < self._deadline_ns:
            self._schedule(now_ns)
        else:
            self._callback()
