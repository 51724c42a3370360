"""Reading clocks, and sleeping: clock_gettime(2), nanosleep(2), times(2), adjtimex(2)."""

from __future__ import annotations

from functools import partial

from asyncsentry import clock as clocks
from asyncsentry.abi import time_h as abi
from asyncsentry.clock import CLOCK_MONOTONIC, CLOCK_REALTIME, NS_PER_SECOND
from asyncsentry.errnos import EINVAL, EOPNOTSUPP, EPERM, Interrupted
from asyncsentry.syscalls.args import Flags, Int, Pointer
from asyncsentry.syscalls.registry import Restart, syscall
from asyncsentry.syscalls.timespec import NS_PER_US, US_PER_SECOND, read_timespec, write_timespec
from asyncsentry.tasks.cputime import process_cpu_ns
from asyncsentry.tasks.sleep import Sleep
from asyncsentry.tasks.thread import Thread
from asyncsentry.tasks.timebase import SYSTEM_CLOCKS, TIME_MAX_NS, SystemTime, TimeBase, base_for_clock

_COARSE_CLOCKS = (clocks.CLOCK_REALTIME_COARSE, clocks.CLOCK_MONOTONIC_COARSE)
_COARSE_GRAIN_NS = 4_000_000
_TICK_NS = NS_PER_SECOND // abi.USER_HZ
_TIMERLESS_CLOCKS = (*_COARSE_CLOCKS, clocks.CLOCK_MONOTONIC_RAW)
_ERESTARTNOHAND = -Restart.NOHAND
_MAX_ERROR_US = 16_000_000
_TOLERANCE = 32_768_000
_TICK_US = 10_000


@syscall(228, errnos="EFAULT EINVAL")
def clock_gettime(thread: Thread, clock_id: Int, result: Pointer) -> int:
    """clock_gettime(2)."""
    if clock_id in SYSTEM_CLOCKS:
        now_ns = thread.kernel.clock.now_ns(clock_id)
    else:
        now_ns = base_for_clock(thread, clock_id).now_ns()
    thread.memory.write(result, abi.TIMESPEC.pack(now_ns // NS_PER_SECOND, now_ns % NS_PER_SECOND))
    return 0


@syscall(229, errnos="EFAULT EINVAL")
def clock_getres(thread: Thread, clock_id: Int, result: Pointer) -> int:
    """clock_getres(2): a tick for the coarse clocks and the tick-based CPU clocks, else a nanosecond."""
    base_for_clock(thread, clock_id)
    is_ticking = clock_id < 0 and clock_id & abi.CPUCLOCK_CLOCK_MASK != abi.CPUCLOCK_SCHED
    if result:
        write_timespec(thread, result, _COARSE_GRAIN_NS if clock_id in _COARSE_CLOCKS or is_ticking else 1)
    return 0


@syscall(227, errnos="EFAULT EINVAL EPERM")
def clock_settime(thread: Thread, clock_id: Int, new: Pointer) -> int:
    """clock_settime(2): a guest may not; only CLOCK_REALTIME could be set at all."""
    if clock_id != CLOCK_REALTIME and clock_id >= 0:
        raise EINVAL(f"clock {clock_id} cannot be set")
    read_timespec(thread, new)
    raise EPERM("clocks belong to the host")


@syscall(96, errnos="EFAULT")
def gettimeofday(thread: Thread, time: Pointer, zone: Pointer) -> int:
    """gettimeofday(2)."""
    if time:
        now_us = thread.kernel.clock.now_ns(CLOCK_REALTIME) // NS_PER_US
        thread.memory.write_struct(time, abi.TIMEVAL, *divmod(now_us, US_PER_SECOND))
    if zone:
        thread.memory.write_struct(zone, abi.TIMEZONE, 0, 0)
    return 0


@syscall(164, errnos="EFAULT EINVAL EPERM")
def settimeofday(thread: Thread, time: Pointer, zone: Pointer) -> int:
    """settimeofday(2): a guest may not."""
    if time:
        seconds, microseconds = thread.memory.read_struct(time, abi.TIMEVAL)
        if seconds < 0 or not 0 <= microseconds < US_PER_SECOND:
            raise EINVAL(f"time of {seconds} s, {microseconds} us")
    if zone:
        thread.memory.read_struct(zone, abi.TIMEZONE)
    raise EPERM("clocks belong to the host")


@syscall(201, errnos="EFAULT")
def time(thread: Thread, result: Pointer) -> int:
    """time(2)."""
    now = thread.kernel.clock.now_ns(CLOCK_REALTIME) // NS_PER_SECOND
    if result:
        thread.memory.write_i64(result, now)
    return now


@syscall(100, errnos="EFAULT")
def times(thread: Thread, buffer: Pointer) -> int:
    """times(2): clock ticks since boot, and of the process and its reaped children."""
    if buffer:
        children = thread.process.children_usage
        used = (*process_cpu_ns(thread.process), children.user_ns, children.system_ns)
        thread.memory.write_struct(buffer, abi.TMS, *(used_ns // _TICK_NS for used_ns in used))
    return thread.kernel.clock.now_ns() // _TICK_NS


@syscall(309, errnos="EFAULT")
def getcpu(thread: Thread, cpu: Pointer, node: Pointer) -> int:
    """getcpu(2): one of the CPUs the thread may run on, node 0. A thread may be moved at any time anyway."""
    if cpu:
        affinity = thread.scheduling.affinity
        thread.memory.write_u32(cpu, min(affinity) if affinity else 0)
    if node:
        thread.memory.write_u32(node, 0)
    return 0


@syscall(35, errnos="EFAULT EINTR EINVAL", restart=Restart.BLOCK)
async def nanosleep(thread: Thread, request: Pointer, remaining: Pointer) -> int:
    """nanosleep(2)."""
    duration_ns = read_timespec(thread, request)
    return await _sleep_for(thread, SystemTime(thread.kernel.clock, CLOCK_MONOTONIC), duration_ns, remaining)


@syscall(230, errnos="EFAULT EINTR EINVAL EOPNOTSUPP", restart=Restart.BLOCK)
async def clock_nanosleep(thread: Thread, clock_id: Int, flags: Flags, request: Pointer, remaining: Pointer) -> int:
    """clock_nanosleep(2): an absolute sleep is simply made again after a signal, a relative one gone on with."""
    base = base_for_clock(thread, clock_id)
    if clock_id in _TIMERLESS_CLOCKS or clock_id == clocks.CLOCK_THREAD_CPUTIME_ID:
        raise EOPNOTSUPP(f"no sleeping on clock {clock_id}")
    time_ns = read_timespec(thread, request)
    if not flags & abi.TIMER_ABSTIME:
        if not base.is_cpu:
            base = SystemTime(thread.kernel.clock, CLOCK_MONOTONIC)  # unmoved by a change of the time of day
        return await _sleep_for(thread, base, time_ns, remaining)
    try:
        return await Sleep(thread, base, time_ns).run()
    except Interrupted:
        return _ERESTARTNOHAND


async def _sleep_for(thread: Thread, base: TimeBase, duration_ns: int, remaining: int) -> int:
    deadline_ns = min(base.now_ns() + duration_ns, TIME_MAX_NS)
    write_remaining = partial(write_timespec, thread, remaining) if remaining else None
    return await Sleep(thread, base, deadline_ns, write_remaining).run()


@syscall(159, errnos="EFAULT EINVAL EPERM", missing="reads only")
def adjtimex(thread: Thread, buffer: Pointer) -> int:
    """adjtimex(2)."""
    return _adjust(thread, buffer)


@syscall(305, errnos="EFAULT EINVAL EOPNOTSUPP EPERM", missing="reads only")
def clock_adjtime(thread: Thread, clock_id: Int, buffer: Pointer) -> int:
    """clock_adjtime(2)."""
    base_for_clock(thread, clock_id)
    if clock_id != CLOCK_REALTIME:
        raise EOPNOTSUPP(f"clock {clock_id} cannot be adjusted")
    return _adjust(thread, buffer)


def _adjust(thread: Thread, buffer: int) -> int:
    """Tells of a clock that nobody disciplines, as a Linux without a time daemon does."""
    modes, *_ = abi.TIMEX.unpack(thread.memory.read(buffer, abi.TIMEX.size))
    if modes not in (0, abi.ADJ_OFFSET_SS_READ):
        raise EPERM("clocks belong to the host")
    now_us = thread.kernel.clock.now_ns(CLOCK_REALTIME) // NS_PER_US
    thread.memory.write_struct(
        buffer, abi.TIMEX, modes, 0, 0, _MAX_ERROR_US, _MAX_ERROR_US, abi.STA_UNSYNC, 2, 1, _TOLERANCE,
        *divmod(now_us, US_PER_SECOND), _TICK_US, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    return abi.TIME_ERROR
