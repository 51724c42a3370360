"""The kernel object: all state of one sandbox hangs from it, and nothing is kept at module level.

Several kernels live side by side in one Python process. What each field's object does is told where it
is defined; this file is the map.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakSet

from asyncsentry.abi import utsname_h
from asyncsentry.bootlog import BootLog
from asyncsentry.clock import Clock, HostClock, RandomSource
from asyncsentry.errnos import EEXIST, EINVAL, SentryBug
from asyncsentry.fs.devices import DeviceRegistry
from asyncsentry.fs.inotify import InotifyState
from asyncsentry.fs.mqueue import QueueFileSystem
from asyncsentry.fs.tmpfs import TmpFileSystem
from asyncsentry.fs.tty.terminals import Terminals
from asyncsentry.gate import RunQueue
from asyncsentry.memory.auxv import Hardware
from asyncsentry.net.socket_tables import SocketTables
from asyncsentry.net.unix_names import UnixNamespace
from asyncsentry.sysctl import Sysctls
from asyncsentry.tasks.facts import GuestFacts
from asyncsentry.tasks.futex import FutexTable
from asyncsentry.tasks.jobcontrol import GuestJobControl
from asyncsentry.tasks.messages import MessageTable
from asyncsentry.tasks.semaphores import SemaphoreTable
from asyncsentry.tasks.shm import ShmTable
from asyncsentry.tasks.signals.pending import QueuedCounts
from asyncsentry.tasks.signals.send import signal_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.hostfacts import HostFacts
    from asyncsentry.fs.inode import FileSystem
    from asyncsentry.fs.mount import MountNamespace
    from asyncsentry.fs.procfs.base import TaskFacts
    from asyncsentry.fs.procfs.net import NetworkTables
    from asyncsentry.fs.tty.jobcontrol import JobControl
    from asyncsentry.net.sockets import SocketFamily
    from asyncsentry.platforms.base import Platform
    from asyncsentry.syscalls.dispatch import Dispatch
    from asyncsentry.tasks.oom import MemoryWatch
    from asyncsentry.tasks.process import Process, ProcessGroup
    from asyncsentry.tasks.thread import Thread

PID_MAX = 4194303
"""The largest pid, /proc/sys/kernel/pid_max less one."""


class Kernel:
    """One sandbox's kernel. Make it inside a running event loop."""

    def __init__(self, platform: Platform, clock: Clock | None = None, random: RandomSource | None = None,
                 hostname: str = "asyncsentry") -> None:
        self.platform = platform
        self.clock: Clock = clock or HostClock()
        self.random = random or RandomSource()
        self.run_queue = RunQueue(asyncio.get_running_loop())
        platform.run_queue = self.run_queue
        platform.on_failure = self.fail
        self.hostname = hostname
        self.domainname = "(none)"
        self.mounts: MountNamespace
        """The initial mount namespace; set while the sandbox is built."""
        self.null_device: Location
        """/dev/null as it was made, whatever guests put in its place; set while the sandbox is built."""
        self.dispatch: Dispatch
        self.processes: dict[int, Process] = {}
        """Every process, zombies included, by pid."""
        self.threads: dict[int, Thread] = {}
        """Every live thread by tid."""
        self.boot_time_ns = self.clock.now_ns()
        self.memfds = TmpFileSystem(1, self.clock)
        """What the files of memfd_create(2) belong to."""
        self.filesystems: WeakSet[FileSystem] = WeakSet((self.memfds,))
        """Those that no mount may lead to any more: guests mount and unmount."""
        self.inotify = InotifyState()
        self.hardware = Hardware.capture()
        """What programs are told of the processor."""
        self.sysctls = Sysctls()
        """The parameters of /proc/sys."""
        self.shared_memory = ShmTable(self.clock, self.sysctls)
        """System V shared memory segments."""
        self.semaphores = SemaphoreTable(self.clock, self.sysctls)
        """System V semaphore sets."""
        self.messages = MessageTable(self.clock, self.sysctls)
        """System V message queues."""
        self.network = "none"
        """``none`` or ``host``."""
        self.memory_limit: int | None = None
        """Bytes of memory guests have; ``None`` for the host's."""
        self.memory: MemoryWatch | None = None
        """Holds them to that, if there is a limit."""
        self.file_memory: MemoryWatch | None = None
        """Holds what is ours of guest memory, the files in it, to a limit, set or not."""
        self.birth_lock = asyncio.Lock()
        """Held while a thread or process is made: platforms make one at a time."""
        self.queued_signals = QueuedCounts()
        """How many signals each user has waiting."""
        self.signal_group: Callable[[ProcessGroup, int], None] = signal_group
        """Sends a signal of the kernel's own (SIGINT of a terminal) to a process group; for ``fs``, which is below."""
        self.task_facts: TaskFacts = GuestFacts()
        """What /proc asks of guest tasks and file systems cannot know."""
        self.devices = DeviceRegistry()
        """What opening a device node of each number does."""
        self.job_control: JobControl = GuestJobControl(self)
        """What terminals ask of processes."""
        self.terminals = Terminals(self)
        """Pseudo-terminals, the console, and what /dev/tty leads to."""
        self.terminals.register(self.devices)
        self.host_facts: HostFacts
        """Processors and memory of the host, captured before the sandbox is confined."""
        self.log = BootLog(utsname_h.RELEASE, utsname_h.VERSION, self.random.below)
        """What dmesg(1) shows."""
        self.futexes = FutexTable()
        """Threads that sleep on words of guest memory."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets a :class:`SentryBug` when the sandbox must stop."""
        self._next_pid = 2  # 1 is for an init of a container; programs started by a library caller are nobody's init
        self._next_device = 1
        self._next_inode = 1
        self.socket_families: dict[int, SocketFamily] = {}
        """What makes sockets, by AF_*; filled by ``net/families.py`` when the first socket is made."""
        self.unix = UnixNamespace()
        self.network_tables: NetworkTables = SocketTables(self)
        """What /proc/net shows of sockets."""
        self.mqueues = QueueFileSystem(self.allocate_device(), self.clock, self.sysctls)
        """POSIX message queues."""

    @property
    def init(self) -> Process | None:
        """The process with pid 1, if it lives."""
        return self.processes.get(1)

    def allocate_pid(self) -> int:
        """Gives a process or thread number nobody has, going round at pid_max."""
        while True:
            pid, self._next_pid = self._next_pid, self._next_pid % (self.sysctls.integer("kernel.pid_max") - 1) + 1
            if pid not in self.processes and pid not in self.threads:
                return pid

    def check_pid_free(self, pid: int) -> None:
        """EINVAL or EEXIST unless a process asked for by number, clone3(2), may have it."""
        if not 1 < pid <= PID_MAX:
            raise EINVAL(f"pid {pid} is out of range")
        if pid in self.processes or pid in self.threads:
            raise EEXIST(f"pid {pid} is in use")

    def allocate_device(self) -> int:
        """Gives a device number (major 0) for a new file system."""
        self._next_device += 1
        return self._next_device

    def allocate_inode(self) -> int:
        """Gives an inode number for anonymous objects (pipes, sockets, …)."""
        self._next_inode += 1
        return self._next_inode

    def fail(self, error: BaseException) -> None:
        """Stops the sandbox because of a bug of ours; the first one counts."""
        if not self.failure.done():
            self.failure.set_exception(error if isinstance(error, SentryBug) else SentryBug(repr(error)))
            self.failure.exception()  # whoever runs the sandbox asks; nobody asking is no error
