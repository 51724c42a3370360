"""The proc file system itself, what it asks of the kernel, and the subject its files are about.

File systems do not import ``tasks``: guest processes and threads are duck-typed here, and what only
``tasks`` can work out comes through :class:`TaskFacts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asyncsentry import errnos
from asyncsentry.abi.capability_h import CAP_SYS_PTRACE
from asyncsentry.clock import NS_PER_SECOND, Clock, RandomSource
from asyncsentry.fs.synthetic import SyntheticFileSystem

if TYPE_CHECKING:
    from asyncsentry.fs.hostfacts import HostFacts
    from asyncsentry.memory.account import MemoryAccount
    from asyncsentry.sysctl import Sysctls

PROC_SUPER_MAGIC = 0x9FA0
USER_HZ = 100
"""Clock ticks per second in /proc, sysconf(_SC_CLK_TCK)."""
NS_PER_TICK = NS_PER_SECOND // USER_HZ
SUID_DUMP_USER = 1


class CpuTimes(NamedTuple):
    """Processor time used."""

    user_ns: int = 0
    system_ns: int = 0


class SignalSets(NamedTuple):
    """Signals of a thread as bit masks, bit 0 for signal 1."""

    pending: int = 0
    shared_pending: int = 0
    blocked: int = 0
    ignored: int = 0
    caught: int = 0
    queued: int = 0
    """How many are queued for the process, against RLIMIT_SIGPENDING."""


class TaskFacts(Protocol):
    """What proc asks of guest tasks. ``Any`` stands for the classes of ``tasks``."""

    def process_cpu(self, process: Any) -> CpuTimes:
        """Time of all threads of a process, those that are gone included."""

    def thread_cpu(self, thread: Any) -> CpuTimes:
        """Time of one thread."""

    def children_cpu(self, process: Any) -> CpuTimes:
        """Time of children it has reaped."""

    def state(self, thread: Any) -> str:
        """The state letter of /proc/PID/stat for a live thread."""

    def signals(self, thread: Any) -> SignalSets:
        """Pending signals and dispositions."""


class ProcKernel(Protocol):
    """What proc asks of the kernel object."""

    clock: Clock
    random: RandomSource
    hostname: str
    domainname: str
    memory_limit: int | None
    boot_time_ns: int
    sysctls: Sysctls
    host_facts: HostFacts
    task_facts: TaskFacts
    mounts: Any
    shared_memory: Any
    semaphores: Any
    messages: Any
    network: str

    @property
    def memory(self) -> MemoryAccount | None:
        """What guests use, if they are held to a limit."""

    @property
    def processes(self) -> Mapping[int, Any]:
        """Every process by pid."""

    @property
    def threads(self) -> Mapping[int, Any]:
        """Every live thread by tid."""


class ProcFileSystem(SyntheticFileSystem):
    """One mounted proc. Its tree is made by :func:`asyncsentry.fs.procfs.root.make_proc`."""

    name = "proc"
    magic = PROC_SUPER_MAGIC

    def __init__(self, device: int, kernel: ProcKernel) -> None:
        super().__init__(device, kernel.clock)
        self.kernel = kernel
        self.load = LoadAverage(kernel.clock.now_ns())
        self.boot_id = format_uuid(kernel.random.bytes(16))
        self.options = ""

    def mount_options(self) -> str:
        """Gives the options it was mounted with."""
        return self.options


class Subject:
    """The process (or with ``of_thread`` the one thread of it) that a file in /proc/PID is about."""

    __slots__ = ("filesystem", "of_thread", "process", "tid")

    def __init__(self, filesystem: ProcFileSystem, process: Any, tid: int, of_thread: bool) -> None:
        self.filesystem = filesystem
        self.process = process
        self.tid = tid
        self.of_thread = of_thread

    @property
    def kernel(self) -> ProcKernel:
        """The kernel it lives in."""
        return self.filesystem.kernel

    @property
    def exists(self) -> bool:
        """Whether it has not been reaped."""
        if self.of_thread:
            return self.tid in self.process.threads
        return self.kernel.processes.get(self.process.pid) is self.process

    @property
    def thread(self) -> Any | None:
        """The thread whose attributes are shown; ``None`` for a zombie."""
        threads = self.process.threads
        found = threads.get(self.tid)
        return found if found is not None or self.of_thread else next(iter(threads.values()), None)

    def live(self) -> Any:
        """Gives the thread; ESRCH if there is none any more."""
        thread = self.thread
        if thread is None or not self.exists:
            raise errnos.ESRCH(f"process {self.process.pid} is gone")
        return thread

    @property
    def memory(self) -> Any | None:
        """Its address space, or ``None``."""
        thread = self.thread
        return None if thread is None else thread.memory

    @property
    def credentials(self) -> Any | None:
        """Whose it is; of a zombie, whose it was at last."""
        thread = self.thread
        return thread.credentials if thread is not None else self.process.last_credentials

    def owner(self) -> tuple[int, int]:
        """Gives the owner of its files: the effective user, or root if it cannot be inspected, proc(5)."""
        credentials = self.credentials
        if credentials is None or self.process.dumpable != SUID_DUMP_USER:
            return 0, 0
        return credentials.euid, credentials.egid

    def check_inspection(self, caller: Any) -> None:
        """Raises EACCES unless ``caller`` may look inside: PTRACE_MODE_READ_FSCREDS, ptrace(2)."""
        if caller is None or caller.process is self.process:
            return
        mine, theirs = caller.credentials, self.credentials
        if theirs is None or self.thread is None:
            raise errnos.EACCES("a zombie has nothing to inspect")
        uids, gids = {theirs.euid, theirs.suid, theirs.ruid}, {theirs.egid, theirs.sgid, theirs.rgid}
        same = uids == {mine.fsuid} and gids == {mine.fsgid}
        covered = theirs.permitted & ~mine.permitted == 0
        if same and covered and self.process.dumpable == SUID_DUMP_USER:
            return
        if not mine.has(CAP_SYS_PTRACE):
            raise errnos.EACCES(f"process {self.process.pid} is another user's")


class LoadAverage:
    """The three load averages, worked out when someone looks: no timer runs while nobody does."""

    __slots__ = ("_last_ns", "values")

    PERIODS_S = (60, 300, 900)

    def __init__(self, now_ns: int) -> None:
        self.values = [0.0, 0.0, 0.0]
        self._last_ns = now_ns

    def update(self, now_ns: int, running: int) -> None:
        """Lets the averages drift towards the number of threads running now, for the time that passed."""
        elapsed_s = max(0, now_ns - self._last_ns) / NS_PER_SECOND
        self._last_ns = now_ns
        for number, period_s in enumerate(self.PERIODS_S):
            kept = 2.718281828459045 ** (-elapsed_s / period_s)
            self.values[number] = self.values[number] * kept + running * (1 - kept)


def format_uuid(raw: bytes) -> str:
    """Gives a random (version 4) UUID made of 16 bytes."""
    number = int.from_bytes(raw, "big")
    number = number & ~(0xF << 76) | 4 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def kib(byte_count: int) -> int:
    """Gives bytes in KiB."""
    return byte_count // 1024
