"""What the kernel asks of a platform: address spaces, contexts in them, and their traps.

An :class:`AddressSpace` is guest memory (on the real platforms a host process). A :class:`Context`
is one thread of guest execution in it. A context is either *running* guest code or *trapped*;
while trapped, its registers may be read and edited, and host calls that change the address space
may be queued, which the context carries out itself before it runs on (or before :meth:`Context.flush`
returns). The same interface is implemented by ``systrap``, ``ptrace`` and, for tests, ``fake``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import NamedTuple, Protocol

from asyncsentry.gate import Gate, RunQueue

GUEST_ADDRESS_MIN = 0x1_0000
"""Lowest address guests may map (vm.mmap_min_addr)."""
GUEST_ADDRESS_MAX = 0x7FE0_0000_0000
"""First address guests may not map: everything above belongs to the platform."""
PAGE_SIZE = 4096


class TrapKind(enum.IntEnum):
    """Why a context stopped."""

    SYSCALL = 1
    FAULT = 2
    """A synchronous signal of its own making: see :attr:`Context.fault`."""
    INTERRUPT = 3
    """:meth:`Context.interrupt` was called while it ran."""
    HOST_CALL_FAILED = 4
    """A call queued with :meth:`Context.queue_host_call` failed: see :attr:`Context.host_error`."""
    GONE = 5
    """The host process died under it (killed, or out of memory)."""


class Fault(NamedTuple):
    """What the processor complained of, as siginfo and the machine context tell it."""

    signo: int
    code: int
    address: int
    trapno: int
    error: int


class HostCall(NamedTuple):
    """A host system call for a guest process to make on itself (mmap, munmap, mprotect, …).

    ``descriptor`` is one of our own host descriptors that the platform lends it as the fifth argument.
    """

    number: int
    arguments: tuple[int, ...]
    descriptor: int | None = None


class Registers:
    """The general registers in the order of ``struct user_regs_struct``, sys/user.h."""

    NAMES = (
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
        "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
    )  # fmt: skip
    __slots__ = NAMES

    r15: int
    r14: int
    r13: int
    r12: int
    rbp: int
    rbx: int
    r11: int
    r10: int
    r9: int
    r8: int
    rax: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    orig_rax: int
    rip: int
    cs: int
    eflags: int
    rsp: int
    ss: int
    fs_base: int
    gs_base: int
    ds: int
    es: int
    fs: int
    gs: int

    def __init__(self, values: Iterable[int] = (0,) * len(NAMES)) -> None:
        (
            self.r15, self.r14, self.r13, self.r12, self.rbp, self.rbx, self.r11, self.r10, self.r9, self.r8, self.rax,
            self.rcx, self.rdx, self.rsi, self.rdi, self.orig_rax, self.rip, self.cs, self.eflags, self.rsp, self.ss,
            self.fs_base, self.gs_base, self.ds, self.es, self.fs, self.gs,
        ) = values  # fmt: skip

    def values(self) -> tuple[int, ...]:
        """Gives the registers in the order of :attr:`NAMES`."""
        return _values(self)

    def copy(self) -> Registers:
        """Gives an independent copy."""
        return Registers(_values(self))


_values: Callable[[Registers], tuple[int, ...]] = attrgetter(*Registers.NAMES)


class AddressSpace(Protocol):
    """Guest memory. Access honours the guest's own page protections."""

    host_pid: int
    """The host process that holds the memory; 0 on the fake platform."""

    def read(self, address: int, count: int) -> bytes:
        """Copies guest memory out; EFAULT unless all of it is readable."""

    def read_some(self, address: int, count: int) -> bytes:
        """Copies out as many of ``count`` bytes as are readable from ``address`` on; perhaps none."""

    def write(self, address: int, data: bytes) -> None:
        """Copies into guest memory; EFAULT unless all of it is writable (what came before is written)."""

    def write_some(self, address: int, data: bytes) -> int:
        """Copies in as much as is writable from ``address`` on and gives how much."""

    def write_from_file(self, address: int, count: int, descriptor: int, offset: int) -> int:
        """Reads at most 1 MiB of a host file straight into guest memory and gives how much came.

        EFAULT if nothing could be written; host errors as their errno.
        """


class Context(Protocol):
    """One thread of guest execution."""

    @property
    def space(self) -> AddressSpace:
        """The guest memory it runs in."""

    number: int
    """Number of the system call it trapped with (as the guest put it in ``rax``, 64 bits, unsigned)."""
    @property
    def arguments(self) -> tuple[int, int, int, int, int, int]:
        """Its six arguments, unsigned 64-bit."""

    fault: Fault
    host_error: int
    host_tid: int

    gate: Gate
    """Where its task waits; fired when it has trapped, or died."""

    def trap(self) -> TrapKind | None:
        """Says why it has trapped; ``None`` while it has not."""

    async def wait_trap(self) -> TrapKind:
        """Waits until it traps; the first wait of a new context ends at its first trap after resume."""

    def set_result(self, value: int) -> None:
        """Sets what the trapped call returns (``rax``)."""

    def resume(self) -> None:
        """Lets it run on, after the queued host calls."""

    def resume_with(self, value: int) -> None:
        """Sets the result and lets it run on."""

    def queue_host_call(self, call: HostCall) -> None:
        """Queues a call for :meth:`resume`; if it fails there, a HOST_CALL_FAILED trap follows."""

    async def flush(self) -> list[int]:
        """Runs the queued calls now, staying trapped; gives their raw results (``-errno`` for errors)."""

    async def compare_exchange(self, address: int, expected: int, new: int) -> int:
        """Atomically replaces a 32-bit word of guest memory if it equals ``expected``; gives what it was.

        The context must be trapped, and the caller must have seen that a mapping there is writable: a guest
        that unmaps it meanwhile kills itself.
        """

    def interrupt(self) -> None:
        """Makes a running context trap soon with INTERRUPT; harmless if it is trapped."""

    def get_registers(self) -> Registers:
        """Copies the registers of the trapped context (``fs_base``/``gs_base`` as last known)."""

    def set_registers(self, registers: Registers) -> None:
        """Installs registers. Segment selectors and privileged flag bits are sanitised."""

    def get_fpstate(self) -> bytes:
        """Copies the XSAVE image as the kernel lays it out in a signal frame (with its magic words)."""

    def set_fpstate(self, image: bytes) -> None:
        """Installs an XSAVE image that came from a guest: hostile, so checked; EINVAL if malformed.

        Empty means the initial state of the processor.
        """

    def set_fs_base(self, address: int) -> None:
        """Sets the thread pointer, ARCH_SET_FS."""

    def set_gs_base(self, address: int) -> None:
        """Sets the other one, ARCH_SET_GS."""

    async def destroy(self) -> None:
        """Ends the host thread (and with the last one the host process, and the memory)."""


class Platform(Protocol):
    """Makes address spaces and contexts."""

    name: str
    run_queue: RunQueue | None
    """Guest threads to step between traps; the kernel sets it."""
    on_failure: Callable[[BaseException], None]
    """Told of a bug outside any guest thread's task; the kernel sets it."""

    async def start(self) -> None:
        """Brings up what is shared by all address spaces of a sandbox."""

    async def close(self) -> None:
        """Ends every host process it made and gives back every descriptor."""

    async def new_address_space(self) -> Context:
        """Gives a trapped context in an empty address space (execve)."""

    async def fork(self, context: Context) -> Context:
        """Copies the address space of a trapped context; gives the copy, trapped with the same registers."""

    async def clone(self, context: Context) -> Context:
        """Gives a second context, with the same registers, trapped in the same address space."""

    def vdso(self) -> tuple[int, int]:
        """Gives address and size of the vDSO image present in every new address space, or (0, 0)."""
