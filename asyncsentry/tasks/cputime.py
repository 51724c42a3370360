"""Processor time of guest threads and processes, from the host threads that run them. clock_getcpuclockid(3).

A process's time is the host's process clock of its address space (``usage.py``). Linux gives thread clocks
only to members of the same process, so a thread's time is read from ``schedstat`` of its host thread, and only
where a process has several threads. Time this kernel spends on a guest's behalf counts for nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.tasks.usage import host_cpu_ns, process_usage

if TYPE_CHECKING:
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread


def process_cpu_ns(process: Process) -> tuple[int, int]:
    """Gives (user, system) time of a process, its dead threads included."""
    usage = process_usage(process)
    return usage.user_ns, usage.system_ns


def thread_cpu_ns(thread: Thread) -> tuple[int, int]:
    """Gives (user, system) time of a thread; never less than it gave before."""
    process = thread.process
    if len(process.threads) == 1 and thread.memory.users == 1:
        total_ns = sum(process_cpu_ns(process))
    else:
        total_ns = _host_thread_ns(thread)
        if thread.tid == process.pid:
            past = process.past_usage
            total_ns += past.user_ns + past.system_ns - process.cpu_base_ns
    # The two sources lag behind each other by up to a scheduler tick.
    thread.cpu_seen_ns = max(thread.cpu_seen_ns, total_ns)
    return thread.cpu_seen_ns, 0


def _host_thread_ns(thread: Thread) -> int:
    space = thread.context.space
    if not space.host_pid:
        return 0
    try:
        with open(f"/proc/{space.host_pid}/task/{thread.context.host_tid}/schedstat", "rb") as file:
            return int(file.read().split()[0])
    except OSError:
        return host_cpu_ns(space)  # no /proc here: the sum over all threads is the closest there is
