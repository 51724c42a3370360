"""What processes have used: processor time, and the sums a parent inherits when it reaps. See getrusage(2).

Guest code runs on host processes of its own, so the host's process clock of an address space tells what
its guest process used. Time spent in this kernel on its behalf is not known apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncsentry.abi.mman_h import PROT_WRITE
from asyncsentry.abi.resource_h import RUSAGE
from asyncsentry.tasks.cputime import host_cpu_ns, process_cpu_ns, thread_cpu_ns

if TYPE_CHECKING:
    from asyncsentry.memory.manager import MemoryManager
    from asyncsentry.platforms.base import AddressSpace
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread

NS_PER_US = 1000
US_PER_SECOND = 1_000_000


@dataclass(slots=True)
class Usage:
    """Resources used so far."""

    user_ns: int = 0
    system_ns: int = 0
    max_rss_bytes: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0

    def add(self, other: Usage) -> None:
        """Adds what another has used; of the memory only the larger peak counts."""
        self.user_ns += other.user_ns
        self.system_ns += other.system_ns
        self.max_rss_bytes = max(self.max_rss_bytes, other.max_rss_bytes)
        self.minor_faults += other.minor_faults
        self.major_faults += other.major_faults
        self.voluntary_switches += other.voluntary_switches
        self.involuntary_switches += other.involuntary_switches

    def pack(self) -> bytes:
        """Lays it out as ``struct rusage``."""
        user_us, system_us = self.user_ns // NS_PER_US, self.system_ns // NS_PER_US
        return RUSAGE.pack(
            *divmod(user_us, US_PER_SECOND), *divmod(system_us, US_PER_SECOND), self.max_rss_bytes // 1024,
            0, 0, 0, self.minor_faults, self.major_faults, 0, 0, 0, 0, 0, 0,
            self.voluntary_switches, self.involuntary_switches,
        )  # fmt: skip


def resident_bytes(memory: MemoryManager) -> int:
    """Gives an upper bound of the memory a guest uses: what it mapped and may write, or has from a file.

    What the host really holds cannot be asked without opening its /proc.
    """
    return sum(vma.size for vma in memory.vmas if vma.prot & PROT_WRITE or vma.file is not None)


def process_usage(process: Process) -> Usage:
    """Gives what a process has used so far, its threads that are gone included."""
    usage = Usage()
    usage.add(process.past_usage)
    usage.user_ns, usage.system_ns = process_cpu_ns(process)
    if process.threads:
        usage.max_rss_bytes = max(usage.max_rss_bytes, resident_bytes(process.leader.memory))
    return usage


def thread_usage(thread: Thread) -> Usage:
    """Gives what a thread has used, as far as the host tells threads apart."""
    usage = process_usage(thread.process)
    usage.user_ns, usage.system_ns = thread_cpu_ns(thread)
    return usage


def close_account(process: Process) -> None:
    """Books what was used in the present address space; call before it is left (exit, execve)."""
    process.past_usage = process_usage(process)
    process.cpu_split_ns = (0, 0)
    process.cpu_base_ns = 1 << 62  # nothing more is booked until an address space is entered


def open_account(process: Process, space: AddressSpace) -> None:
    """Starts to count in a new address space (fork, execve)."""
    process.cpu_base_ns = host_cpu_ns(space)
    process.timers.cpu_limit.update()
