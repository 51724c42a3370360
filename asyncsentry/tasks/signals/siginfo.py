"""What travels with a signal: siginfo_t, sigaction(2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from asyncsentry.abi import signal_h as abi

if TYPE_CHECKING:
    from asyncsentry.platforms.base import Fault

_FAULTS = frozenset((abi.SIGILL, abi.SIGFPE, abi.SIGSEGV, abi.SIGBUS, abi.SIGTRAP))
_NS_PER_TICK = 10_000_000  # USER_HZ is 100


class SignalSource(Protocol):
    """Someone who wants to know when a signal it sent leaves the queue (a timer re-arms then)."""

    def signal_taken(self, info: SigInfo) -> None:
        """Runs when the signal is taken or thrown away; may still complete ``info``."""


@dataclass(slots=True)
class SigInfo:
    """One signal and its circumstances; which fields count depends on ``signo`` and ``code``."""

    signo: int
    code: int = abi.SI_USER
    pid: int = 0
    uid: int = 0
    value: int = 0
    """``sigval``: 64 unsigned bits."""
    status: int = 0
    utime: int = 0
    """A child's CPU times, nanoseconds."""
    stime: int = 0
    address: int = 0
    band: int = 0
    fd: int = 0
    timerid: int = 0
    overrun: int = 0
    syscall: int = 0
    arch: int = abi.AUDIT_ARCH_X86_64
    errno: int = 0
    raw: bytes | None = None
    """The siginfo a guest made up itself, rt_sigqueueinfo(2); then only it counts."""
    source: SignalSource | None = field(default=None, repr=False)
    charged_uid: int | None = field(default=None, repr=False)
    """Whose RLIMIT_SIGPENDING it counts against while it is queued."""

    @property
    def is_synchronous(self) -> bool:
        """Whether the thread's own instruction caused it: such signals are delivered first."""
        return self.code > abi.SI_USER and (self.signo in _FAULTS or self.signo == abi.SIGSYS)

    @property
    def comes_from_outside(self) -> bool:
        """Whether the kernel, or someone outside the sandbox, sent it: init must heed a SIGKILL from there."""
        return self.code > abi.SI_USER or (self.code == abi.SI_USER and self.pid == 0)

    def to_bytes(self) -> bytes:
        """Lays it out as a 128-byte siginfo_t."""
        if self.raw is not None:
            return self.raw[: abi.KERNEL_SIGINFO_SIZE].ljust(abi.SIGINFO_SIZE, b"\0")
        head = abi.SIGINFO_HEAD.pack(self.signo, self.errno, self.code)
        return (head + self._union()).ljust(abi.SIGINFO_SIZE, b"\0")

    def _union(self) -> bytes:
        # The kernel's siginfo_layout(): the code decides first, then the signal.
        if self.code == abi.SI_TIMER:
            return abi.SIGINFO_TIMER.pack(self.timerid, self.overrun, self.value)
        if self.code == abi.SI_SIGIO:
            return abi.SIGINFO_POLL.pack(self.band, self.fd)
        if abi.SI_USER < self.code < abi.SI_KERNEL:
            if self.signo in _FAULTS:
                return abi.SIGINFO_FAULT.pack(self.address, 0, 0, 0)
            if self.signo == abi.SIGCHLD:
                ticks = self.utime // _NS_PER_TICK, self.stime // _NS_PER_TICK
                return abi.SIGINFO_CHILD.pack(self.pid, self.uid, self.status, *ticks)
            if self.signo == abi.SIGPOLL or (self.band or self.fd):
                return abi.SIGINFO_POLL.pack(self.band, self.fd)
            if self.signo == abi.SIGSYS:
                return abi.SIGINFO_SYS.pack(self.address, self.syscall, self.arch)
        if self.code == abi.SI_KERNEL and self.signo in _FAULTS:
            return abi.SIGINFO_FAULT.pack(self.address, 0, 0, 0)
        return abi.SIGINFO_RT.pack(self.pid, self.uid, self.value)

    @classmethod
    def from_bytes(cls, data: bytes) -> SigInfo:
        """Reads a siginfo_t that a guest made up for rt_sigqueueinfo(2)."""
        signo, errno, code = abi.SIGINFO_HEAD.unpack_from(data)
        pid, uid, value = abi.SIGINFO_RT.unpack_from(data, abi.SIGINFO_HEAD.size)
        return cls(signo, code, pid=pid, uid=uid, value=value, errno=errno, raw=bytes(data))

    def with_signo(self, signo: int) -> SigInfo:
        """Sets the signal number, in the guest's own bytes too."""
        self.signo = signo
        if self.raw is not None:
            self.raw = (signo & 0xFFFFFFFF).to_bytes(4, "little") + self.raw[4:]
        return self


def fault_to_siginfo(fault: Fault) -> SigInfo:
    """Gives the siginfo of what the processor complained of."""
    return SigInfo(fault.signo, fault.code, address=fault.address & (1 << 64) - 1)
