"""Processor time of guest threads and processes, from the host threads that run them. clock_getcpuclockid(3).

A process's time is the host's process clock of its address space. Linux gives thread clocks only to members of
the same process, so a thread's time is read from ``schedstat`` of its host thread, and only where a process has
several threads. Time this kernel spends on a guest's behalf counts for nobody.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsentry.platforms.base import AddressSpace
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread


def host_cpu_ns(space: AddressSpace) -> int:
    """Gives the processor time of the host process behind an address space; 0 if it is gone or has none."""
    if not space.host_pid:
        return 0
    # A process clock is named by the complement of its pid, clock_getcpuclockid(3); CPUCLOCK_SCHED is 2.
    try:
        return time.clock_gettime_ns((~space.host_pid << 3) | 2)
    except OSError:
        return 0


def process_cpu_ns(process: Process) -> tuple[int, int]:
    """Gives (user, system) time of a process, its dead threads included."""
    user_ns, system_ns = process.past_usage.user_ns, process.past_usage.system_ns
    if process.threads:
        user_ns += max(0, host_cpu_ns(process.leader.memory.space) - process.cpu_base_ns)
    return user_ns, system_ns


def thread_cpu_ns(thread: Thread) -> tuple[int, int]:
    """Gives (user, system) time of a thread; never less than it gave before."""
    process = thread.process
    if len(process.threads) == 1 and thread.memory.users == 1:
        total_ns = sum(process_cpu_ns(process)) - process.gone_threads_cpu_ns
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
