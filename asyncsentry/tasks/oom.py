"""The memory limit of a sandbox: measuring what guests use, and ending one of them when it is too much.

A guest touches memory without asking this kernel, so it is measured, 20 times a second while there is a limit:
private pages of the guests' host processes, files in memory (tmpfs, memfds, what an overlay copied up), System V
segments, shared anonymous mappings, which count whole, and what waits in pipes and Unix sockets. Above the limit
the largest process gets SIGKILL and the kernel log a line, as Linux's OOM killer does; oom_score_adj counts. Between
two measurements guests can overshoot by what they can touch in that time. Pages of host files are the host's cache and
count for nobody.
Host processes that share pages since a fork count them twice in the cheap figures (``statm``), so before anything
follows from them the exact ones (``smaps_rollup``) are asked.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakSet

from asyncsentry.abi.signal_h import SIGKILL
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.memory.account import MemoryAccount
from asyncsentry.memory.vma import SharedAnonymous
from asyncsentry.tasks.exit import begin_group_exit

if TYPE_CHECKING:
    from asyncsentry.fs.content import PageBudget
    from asyncsentry.fs.fdtable import FdTable
    from asyncsentry.fs.inode import FileSystem
    from asyncsentry.kernel import Kernel
    from asyncsentry.memory.manager import MemoryManager
    from asyncsentry.tasks.process import Process

log = logging.getLogger("asyncsentry")

_PERIOD_S = 0.05
_SHARE_OF_TIME = 20
"""A measurement that takes long makes the next one come later: at most a 20th of the time goes there."""
_PAGE_SIZE = 4096
_ADJUSTMENT_NEVER = -1000


class MemoryWatch(MemoryAccount):
    """Measures a sandbox with a memory limit."""

    def __init__(self, kernel: Kernel, limit: int) -> None:
        super().__init__(limit)
        self._kernel = kernel
        self._budgets: WeakSet[PageBudget] = WeakSet()
        self._victim: Process | None = None
        self._timer: asyncio.TimerHandle | None = None

    def adopt(self, filesystem: FileSystem) -> None:
        """Lets what a file system keeps in memory count."""
        upper = getattr(filesystem, "upper", filesystem)
        if isinstance(upper, TmpFileSystem):
            upper.budget.account = self
            self._budgets.add(upper.budget)

    def start(self) -> None:
        """Measures from now on. In real time, whatever the sandbox's clock says: memory is the host's."""
        self._timer = asyncio.get_running_loop().call_later(_PERIOD_S, self._tick)

    def stop(self) -> None:
        """Measures no more."""
        if self._timer is not None:
            self._timer.cancel()

    def holders(self) -> Iterable[PageBudget]:
        """Gives the file systems in memory."""
        return self._budgets

    def measure(self) -> None:
        """Asks afresh what is in use."""
        for budget in self._budgets:
            budget.recount()
        shared = self._shared_bytes()
        memories = self._memories()
        self.measured = shared + sum(private_bytes(memory.space.host_pid) for memory in memories)
        if self.used > self.limit:
            self.measured = shared + sum(private_bytes_exactly(memory.space.host_pid) for memory in memories)

    def _memories(self) -> set[MemoryManager]:
        return {thread.memory for thread in self._kernel.threads.values()}

    def _shared_bytes(self) -> int:
        segments = sum(segment.resident_bytes for segment in self._kernel.shared_memory)
        anonymous: dict[object, int] = {}
        for memory in self._memories():
            for vma in memory.vmas:
                if isinstance(vma.file, SharedAnonymous):
                    anonymous[vma.file] = max(anonymous.get(vma.file, 0), vma.offset + vma.size)
        files = {file for table in self._tables() for file in table.files.values()}
        return segments + sum(anonymous.values()) + sum(file.held_bytes for file in files)

    def _tables(self) -> set[FdTable]:
        return {thread.fds for thread in self._kernel.threads.values()}

    def _tick(self) -> None:
        began = time.monotonic()
        self.measure()
        if self.used > self.limit and not self._is_victim_leaving():
            self._kill_largest()
        took_s = time.monotonic() - began
        self._timer = asyncio.get_running_loop().call_later(max(_PERIOD_S, took_s * _SHARE_OF_TIME), self._tick)

    def _is_victim_leaving(self) -> bool:
        return self._victim is not None and bool(self._victim.threads)

    def _kill_largest(self) -> None:
        victim = max(self._kernel.processes.values(), key=self._badness, default=None)
        if victim is None or self._badness(victim) <= 0:
            return
        self._victim = victim
        thread = victim.leader
        size_kib = resident_bytes(thread.memory.space.host_pid) // 1024
        self._kernel.log.append(
            f"Out of memory: Killed process {victim.pid} ({thread.name}) total-vm:{thread.memory.total_vm // 1024}kB, "
            f"rss:{size_kib}kB, UID:{thread.credentials.ruid} oom_score_adj:{_adjustment(victim)}",
            (self._kernel.clock.now_ns() - self._kernel.boot_time_ns) // 1000)  # fmt: skip
        log.info("out of memory: process %d (%s) is killed", victim.pid, thread.name)
        begin_group_exit(victim, SIGKILL)

    def _badness(self, process: Process) -> int:
        """Linux's ``oom_badness``: what a process holds, moved by its oom_score_adj in thousandths of the limit."""
        if not process.threads or _adjustment(process) == _ADJUSTMENT_NEVER:
            return 0
        size = resident_bytes(process.leader.memory.space.host_pid)
        size += sum(file.held_bytes for file in process.leader.fds.files.values())
        return max(1, size + _adjustment(process) * self.limit // 1000)


def _adjustment(process: Process) -> int:
    return int(getattr(process, "oom_score_adj", 0))


def resident_bytes(host_pid: int) -> int:
    """Gives what a host process has in memory; 0 if it is gone."""
    return _statm(host_pid)[1] * _PAGE_SIZE


def private_bytes(host_pid: int) -> int:
    """Gives what of it is no file's and no shared memory; pages shared since a fork count in each process."""
    _, resident, shared = _statm(host_pid)
    return (resident - shared) * _PAGE_SIZE


def private_bytes_exactly(host_pid: int) -> int:
    """The same with each page counted once in all: the host walks its page tables for it."""
    try:
        with open(f"/proc/{host_pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss_Anon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # gone, or a host without it
    return private_bytes(host_pid)


def _statm(host_pid: int) -> tuple[int, int, int]:
    try:
        descriptor = os.open(f"/proc/{host_pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0, 0, 0
    try:
        size, resident, shared = os.read(descriptor, 128).split()[:3]
    except (OSError, ValueError):
        return 0, 0, 0
    finally:
        os.close(descriptor)
    return int(size), int(resident), int(shared)
