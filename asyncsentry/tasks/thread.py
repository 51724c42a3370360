"""A guest thread: its processor context, what it shares with others, and its own identity.

What clone(2) may share is an object of its own that several threads point to: ``memory``
(CLONE_VM), ``fds`` (CLONE_FILES), ``fs`` (CLONE_FS), and through ``process`` the signal actions
(CLONE_SIGHAND). Credentials are immutable values, so each thread just holds one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from asyncsentry.tasks.scheduling import Scheduling
from asyncsentry.tasks.signals.send import raise_signal
from asyncsentry.tasks.signals.state import SignalReceiver

if TYPE_CHECKING:
    from asyncsentry.fs.fdtable import FdTable
    from asyncsentry.kernel import Kernel
    from asyncsentry.memory.manager import MemoryManager
    from asyncsentry.platforms.base import Context
    from asyncsentry.tasks.credentials import Credentials
    from asyncsentry.tasks.fscontext import FsContext
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.seccomp import Seccomp
    from asyncsentry.waiter import WaitQueue


class Thread(SignalReceiver):
    """One thread of a guest process. Satisfies :class:`~asyncsentry.waiter.BlockContext`."""

    def __init__(self, kernel: Kernel, process: Process, tid: int, context: Context, memory: MemoryManager,
                 fds: FdTable, fs: FsContext, credentials: Credentials, name: str) -> None:
        super().__init__(kernel)
        self.kernel = kernel
        self.process = process
        self.tid = tid
        self.context = context
        self.memory = memory
        self.fds = fds
        self.fs = fs
        self.credentials = credentials
        self.name = name
        """The command name of /proc/PID/comm, up to 15 bytes."""
        self.task: asyncio.Task[None] | None = None
        """The coroutine that runs it, ``run.py``."""
        self.start_time_ns = kernel.clock.now_ns()
        self.exit_status: int | None = None
        """Wait status once it has begun to exit; ``None`` while it lives."""
        self.kill_pending = False
        """Whether it must leave at its next chance with :attr:`exit_status`, set by another thread (``exit.py``)."""
        self.cpu_seen_ns = 0
        """The processor time it was last told, ``cputime.py``: a clock never goes back."""
        self.parent_death_signal = 0
        """Sent to it when the thread that made its process ends, PR_SET_PDEATHSIG."""
        self.scheduling = Scheduling()
        self.personality = 0
        self.seccomp: Seccomp | None = None
        """How it has confined itself, seccomp(2)."""
        self.clear_child_tid = 0
        """Address zeroed and futex-woken at exit, set_tid_address(2)."""
        self.robust_list = (0, 0)
        """Head and length, set_robust_list(2)."""
        self.restart: Callable[[], Awaitable[int]] | None = None
        """What restart_syscall(2) goes on with after ``Restart.BLOCK``."""

    async def block(self, queue: WaitQueue, mask: int, deadline_ns: int | None = None, exclusive: bool = False) -> None:
        """Waits for one queue: see :class:`~asyncsentry.waiter.BlockContext`, and :meth:`wait` for ``exclusive``."""
        await self.wait(((queue, mask),), deadline_ns, exclusive=exclusive)

    async def block_any(self, queues: Sequence[tuple[WaitQueue, int]], deadline_ns: int | None = None) -> None:
        """Waits for any of several queues; with none and a deadline it sleeps."""
        await self.wait(queues, deadline_ns)

    async def block_uninterruptible(self, queue: WaitQueue, mask: int) -> None:
        """Waits deaf to signals (vfork(2)'s parent); only the end of the sandbox ends it otherwise."""
        await self.wait(((queue, mask),), None, interruptible=False)

    def raise_signal(self, signo: int) -> None:
        """Sends it a signal of the kernel's own making, e.g. SIGPIPE."""
        raise_signal(self, signo)
