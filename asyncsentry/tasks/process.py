"""A guest process: a thread group, its place among processes, and what it leaves to its parent.

Process groups and sessions are plain objects too. See credentials(7), setsid(2), wait(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.tasks.limits import Limits
from asyncsentry.tasks.signals.state import SignalState
from asyncsentry.tasks.timers import ProcessTimers
from asyncsentry.tasks.usage import Usage
from asyncsentry.waiter import POLLIN, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.kernel import Kernel
    from asyncsentry.tasks.credentials import Credentials
    from asyncsentry.tasks.thread import Thread


class Session:
    """Process groups that share a controlling terminal; ``sid`` is its leader's pid."""

    def __init__(self, sid: int) -> None:
        self.sid = sid
        self.terminal: object | None = None
        """The controlling terminal, an object of ``fs/tty``; ``None`` without one."""


class ProcessGroup:
    """Processes that job control handles as one."""

    def __init__(self, pgid: int, session: Session) -> None:
        self.pgid = pgid
        self.session = session
        self.members: set[Process] = set()


class Process:
    """A thread group."""

    def __init__(self, kernel: Kernel, pid: int, parent: Process | None, group: ProcessGroup) -> None:
        self.kernel = kernel
        self.pid = pid
        self.parent = parent
        """``None`` for init and for processes started from outside."""
        self.children: list[Process] = []
        self.threads: dict[int, Thread] = {}
        """Live threads by tid; empty once the process is a zombie."""
        self.leaving_count = 0
        """How many of them are giving back what they hold, ``exit.py``."""
        self.group = group
        group.members.add(self)
        self.start_time_ns = kernel.clock.now_ns()
        self.exit_status: int | None = None
        """Wait status, set when the whole group exits; the process is then a zombie until it is reaped."""
        self.child_queue = WaitQueue()
        """Notified with POLLIN when a child changes state."""
        self.exit_queue = WaitQueue()
        """Notified with POLLIN when this process has become a zombie (pidfd, library waits)."""
        self.thread_queue = WaitQueue()
        """Notified with POLLIN when one of its threads has gone (execve)."""
        self.executable: Location | None = None
        """What /proc/PID/exe leads to."""
        self.exit_signal = 17
        """Signal the parent gets, normally SIGCHLD; 0 for none."""
        self.dumpable = 1
        self.is_subreaper = False
        self.has_execed = False
        self.thp_disabled = False
        """Whether it wants no huge pages, PR_SET_THP_DISABLE."""
        self.parent_tid = 0
        """Which of the parent's threads made it, for __WNOTHREAD and PR_SET_PDEATHSIG."""
        self.group_exit_status: int | None = None
        """Wait status all its threads leave with, once exit_group(2) or a deadly signal has begun to end it."""
        self.signals = SignalState(kernel.queued_signals, is_unkillable=pid == 1)
        """Actions and shared pending signals; clone replaces it by a copy of the parent's."""
        self.timers = ProcessTimers(self)
        self.last_credentials: Credentials | None = None
        """Those of the thread that left last, once it has."""
        self.last_name = ""
        """Its command name, which /proc shows of a zombie."""
        self.stop_signal = 0
        """What stops it (or is about to); 0 while it may run."""
        self.is_stop_complete = False
        """Whether all its threads have halted and the parent was told."""
        self.stop_report: int | None = None
        """Wait status (``signo << 8 | 0x7f``) of a stop that no WUNTRACED wait has fetched yet."""
        self.continue_report = False
        """Whether it was continued and no WCONTINUED wait has fetched that yet."""
        self.limits: Limits = parent.limits.copy() if parent is not None else Limits()
        self.past_usage = Usage()
        """What it used in address spaces it has left."""
        self.gone_threads_cpu_ns = 0
        """Processor time of its threads that have ended, ``cputime.py``."""
        self.children_usage = Usage()
        """What its reaped children, and theirs, used."""
        self.cpu_split_ns = (0, 0)
        """(user, system) time last told of its present address space, ``cputime.py``."""
        self.cpu_base_ns = 0
        """Where its account stood on the host's process clock when it entered its address space, ``usage.py``."""
        self.vfork_queue = WaitQueue()
        """Notified with POLLIN when a child made by vfork(2) gives the parent's memory back."""
        self.is_vforked = False
        """Whether its parent still waits for it, vfork(2)."""

    @property
    def session(self) -> Session:
        """The session its group belongs to."""
        return self.group.session

    @property
    def leader(self) -> Thread:
        """The thread whose tid is the pid; any other if that one has gone first."""
        return self.threads.get(self.pid) or next(iter(self.threads.values()))

    @property
    def credentials(self) -> Credentials:
        """Its leader's identity, as kill(2) and SIGCHLD see it."""
        if self.threads or self.last_credentials is None:
            return self.leader.credentials
        return self.last_credentials

    @property
    def is_zombie(self) -> bool:
        """Whether it has exited and waits to be reaped."""
        return self.exit_status is not None and not self.threads

    def vfork_done(self) -> None:
        """Lets the parent of a vfork(2) go on; called by execve(2) and exit(2), a no-op in any other process."""
        if self.is_vforked:
            self.is_vforked = False
            self.vfork_queue.notify(POLLIN)
