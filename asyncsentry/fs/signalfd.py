"""signalfd(2): taking signals by reading. See Linux's fs/signalfd.c.

What is readable depends on who looks: a thread sees its own pending signals and its process's. So every
thread reads and polls through a :class:`SignalView` of its own (:meth:`File.seen_by`), and an epoll
instance through that of the thread that added the descriptor, as Linux nearly does.
"""

from __future__ import annotations

from struct import Struct
from typing import Protocol, cast

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import O_NONBLOCK
from asyncsentry.abi.signal_h import SIGSYS
from asyncsentry.fs.anon import AnonFile
from asyncsentry.fs.file import O_RDWR, File
from asyncsentry.fs.inode import Inode
from asyncsentry.waiter import READABLE, WaitQueue

SIGNALFD_SIGINFO = Struct("<IiiIIiIIIIiiQQQQHxxiQI28x")
"""``struct signalfd_siginfo``: signo, errno, code, pid, uid, fd, tid, band, overrun, trapno, status, int, ptr,
utime, stime, addr, addr_lsb, syscall, call_addr, arch."""
_NS_PER_TICK = 10_000_000  # USER_HZ is 100


class ReadSignal(Protocol):
    """What a signal that is read tells of itself; ``SigInfo`` of tasks/signals."""

    signo: int
    errno: int
    code: int
    pid: int
    uid: int
    value: int
    status: int
    utime: int
    stime: int
    address: int
    band: int
    fd: int
    timerid: int
    overrun: int
    syscall: int
    arch: int


class SignalThread(Protocol):
    """What a signalfd sees of the thread that reads it."""

    signal_queue: WaitQueue

    @property
    def pending_signals(self) -> int:
        """The mask of signals waiting for it or its process."""

    def take_pending_signal(self, mask: int) -> ReadSignal | None:
        """Removes and gives the next one among ``mask``."""


class SignalFile(AnonFile):
    """A set of signals to be read; the signals themselves wait with threads and processes."""

    def __init__(self, inode: Inode, mask: int, flags: int) -> None:
        super().__init__(inode, O_RDWR | flags & O_NONBLOCK)
        self.mask = mask

    def describe(self) -> str:
        """Gives ``anon_inode:[signalfd]``."""
        return "anon_inode:[signalfd]"

    def fdinfo(self) -> str:
        """Adds the set to ``/proc/self/fdinfo``."""
        return f"sigmask:\t{self.mask:016x}\n"

    def seen_by(self, thread: object) -> File:
        """Gives the thread's own view."""
        return SignalView(self, cast(SignalThread, thread))

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Never reads by itself: transfers turn to :meth:`seen_by` when they would block."""
        if count < SIGNALFD_SIGINFO.size:
            raise errnos.EINVAL("less than one signalfd_siginfo")
        raise errnos.WouldBlock

    def poll(self) -> int:
        """Knows of no thread, hence of no signals."""
        return 0


class SignalView(File):
    """A signalfd with the eyes of one thread."""

    def __init__(self, file: SignalFile, thread: SignalThread) -> None:
        super().__init__(file.inode, file.flags)
        self.queue = thread.signal_queue
        self._file = file
        self._thread = thread

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Takes as many waiting signals as fit."""
        rows: list[bytes] = []
        while len(rows) < count // SIGNALFD_SIGINFO.size:
            info = self._thread.take_pending_signal(self._file.mask)
            if info is None:
                break
            rows.append(_pack(info))
        if not rows:
            raise errnos.WouldBlock
        return b"".join(rows)

    def poll(self) -> int:
        """Is readable while one of the set's signals waits."""
        return READABLE if self._thread.pending_signals & self._file.mask else 0


def _pack(info: ReadSignal) -> bytes:
    low = info.value & 0xFFFFFFFF
    return SIGNALFD_SIGINFO.pack(
        info.signo, info.errno, info.code, info.pid & 0xFFFFFFFF, info.uid & 0xFFFFFFFF, info.fd,
        info.timerid & 0xFFFFFFFF, info.band & 0xFFFFFFFF, info.overrun & 0xFFFFFFFF, 0, info.status,
        low - (1 << 32) if low >> 31 else low, info.value & (1 << 64) - 1, info.utime // _NS_PER_TICK,
        info.stime // _NS_PER_TICK, info.address & (1 << 64) - 1, 0, info.syscall, 0,
        info.arch if info.signo == SIGSYS else 0,
    )  # fmt: skip
