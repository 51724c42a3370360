"""Processor time of guest threads and processes, from the host threads that run them. clock_getcpuclockid(3).

A process's time is the host's process clock of its address space. Linux gives thread clocks only to members of
the same process, so a thread's time is read from ``schedstat`` of its host thread, and only where a process has
several threads. Of a process's time, system time is what its host process spent in the host (page faults, traps), in
the proportion the host tells in whole ticks; Linux's own ``cputime_adjust`` scales so too. Time this kernel spends
on a guest's behalf counts for nobody: knowing it would cost two readings of the clock for each call.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsentry.platforms.base import AddressSpace
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread

_SPLIT_FROM_NS = 20_000_000
"""Below two of the host's ticks the proportion means nothing, and most processes end without a look into /proc."""

def host_cpu_ns(space: AddressSpace) -> int:
    """Gives the processor time of the host process behind an address space; 0 if it is gone or has none."""
    if not space.host_pid:
        return 0
    # A process clock is named by the complement of its pid, clock_getcpuclockid(3); CPUCLOCK_SCHED is 2.
    try:
        return time.clock_gettime_ns((~space.host_pid << 3) | 2)
    except OSError:
        return 0


def _total_ns(process: Process) -> int:
    """Gives what a process used in its present address space."""
    return max(0, host_cpu_ns(process.leader.memory.space) - process.cpu_base_ns) if process.threads else 0


def process_cpu_ns(process: Process) -> tuple[int, int]:
    """Gives (user, system) time of a process, its dead threads included."""
    total_ns, past = _total_ns(process), process.past_usage
    if total_ns >= _SPLIT_FROM_NS:
        share = _system_share(process.leader.memory.space.host_pid)
        # Neither may go back: what the proportion takes from one later is kept for it until the other has caught up.
        system_ns = max(process.cpu_split_ns[1], int(total_ns * share))
        user_ns = max(process.cpu_split_ns[0], total_ns - system_ns)
        process.cpu_split_ns = user_ns, total_ns - user_ns
    else:
        process.cpu_split_ns = total_ns, 0
    return past.user_ns + process.cpu_split_ns[0], past.system_ns + process.cpu_split_ns[1]


def process_total_ns(process: Process) -> int:
    """Gives all processor time of a process, its dead threads included: the process clock."""
    return process.past_usage.user_ns + process.past_usage.system_ns + _total_ns(process)


def _system_share(host_pid: int) -> float:
    """Gives which part of a host process's time was spent in the host; 0 if that is not to be known."""
    try:
        with open(f"/proc/{host_pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    user_ticks, system_ticks = int(fields[11]), int(fields[12])
    return system_ticks / (user_ticks + system_ticks) if system_ticks else 0.0


def thread_cpu_ns(thread: Thread) -> tuple[int, int]:
    """Gives (user, system) time of a thread; never less than it gave before."""
    process = thread.process
    if len(process.threads) == 1 and thread.memory.users == 1:
        total_ns = process_total_ns(process) - process.gone_threads_cpu_ns
    else:
        total_ns = _host_thread_ns(thread)
        if thread.tid == process.pid:
            past = process.past_usage
            total_ns += past.user_ns + past.system_ns - process.cpu_base_ns
    # The two sources lag behind each other by up to a scheduler tick.
    thread.cpu_seen_ns = max(thread.cpu_seen_ns, total_ns)
    return thread.cpu_seen_ns, 0


def book_thread(thread: Thread) -> None:
    """Keeps apart what an ending thread has used, since the process clock goes on to count it."""
    if len(thread.process.threads) > 1:
        thread.process.gone_threads_cpu_ns += sum(thread_cpu_ns(thread))


def _host_thread_ns(thread: Thread) -> int:
    space = thread.context.space
    if not space.host_pid:
        return 0
    try:
        with open(f"/proc/{space.host_pid}/task/{thread.context.host_tid}/schedstat", "rb") as file:
            return int(file.read().split()[0])
    except OSError:
        return host_cpu_ns(space) // max(1, len(thread.process.threads))  # no /proc here: an even share
