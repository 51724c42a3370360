"""One guest thread on systrap: a host thread and its slot.

The private ``slot_record`` (``host.c``) holds what the trap said, copied once when it was taken; properties here read
that copy. Edits go to the signal frame in the slot, which the thread's sigreturn installs.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asyncsentry import errnos
from asyncsentry.gate import Gate
from asyncsentry.platforms._native import ffi, lib
from asyncsentry.platforms.base import Fault, HostCall, Registers, TrapKind

if TYPE_CHECKING:
    from asyncsentry.platforms.systrap.platform import SystrapPlatform
    from asyncsentry.platforms.systrap.space import SystrapSpace

SIGSYS = 31
SYS_EXIT, SYS_ARCH_PRCTL = 60, 158
ARCH_SET_GS, ARCH_SET_FS = 0x1001, 0x1002
MASK64 = (1 << 64) - 1
ACTION_RESUME, ACTION_REPORT = 0, 1
KIND_NEWBORN = 6
SYSCALL = TrapKind.SYSCALL
CALLS_AT_ONCE: int = lib.MAX_CALLS - 1
_FPSTATE_MAX = 8192
_REGISTERS = ffi.typeof("uint64_t[27]")
_NO_ARGUMENTS = (0,) * 6


def lend(descriptor: int) -> int:
    """Duplicates a descriptor for a guest to map; ENFILE when the sentry may open no more."""
    try:
        return os.dup(descriptor)
    except OSError as error:
        raise errnos.ENFILE(f"no descriptor to lend: {error.strerror}") from error


def as_lent(arguments: tuple[int, ...]) -> tuple[int, ...]:
    """Gives the arguments of a mapping with the number under which the guest finds what we lend it."""
    number = lib.LENT_SLOTS_FD if arguments[0] >= lib.SLOTS_BASE else lib.LENT_FD
    return (*arguments[:4], number, *arguments[5:])


class SystrapContext:
    """A guest thread of execution."""

    def __init__(self, platform: SystrapPlatform, space: SystrapSpace, slot: int) -> None:
        self.platform = platform
        self.space = space
        self.slot = slot
        self.gate = Gate(asyncio.get_running_loop())
        self.host_tid = 0
        self.is_trapped = False
        """Whether its trap has been taken and not been answered."""
        self.is_interrupted = False
        """Whether it was interrupted and has not trapped since."""
        self.number = 0
        self.fault = Fault(0, 0, 0, 0, 0)
        self.host_error = 0
        self.lent: deque[tuple[HostCall, int]] = deque()
        """Queued mappings of descriptors, each with our duplicate of the descriptor, until the guest asks for it."""
        self.pending_calls = 0
        self.fs_base = 0
        self.gs_base = 0
        self._hub = platform.hub
        self._record = lib.hub_slot(platform.hub, slot)
        self._arguments = self._record.arguments
        space.contexts.add(self)

    # Traps -----------------------------------------------------------------------------------------

    def trap(self) -> TrapKind | None:
        """Says why the thread has trapped; ``None`` while it has not: then wait at the gate."""
        if not self.is_trapped:
            return TrapKind.GONE if self.space.is_dead else None
        record = self._record
        kind = record.kind
        if kind == SYSCALL:
            self.number = record.number
            return SYSCALL
        return self._other_trap(kind)

    def _other_trap(self, kind: int) -> TrapKind:
        record = self._record
        if self.space.is_dead:
            return TrapKind.GONE
        if kind == TrapKind.FAULT:
            self.fault = Fault(record.signo, record.code, record.address, record.trapno, record.error)
        elif kind == TrapKind.HOST_CALL_FAILED and (done := lib.slot_calls_done(self._hub, self.slot)) > 0:
            self.host_error = max(0, -lib.slot_call_result(self._hub, self.slot, done - 1))
            self._drop_lent()
        elif kind != TrapKind.INTERRUPT:  # a frame that lies: only a guest that writes its slot can do that
            self.platform.kill(self.space)
            return TrapKind.GONE
        return TrapKind(kind)

    async def wait_trap(self) -> TrapKind:
        """Waits until the thread traps and says why."""
        while (kind := self.trap()) is None:
            await self.gate
        return kind

    @property
    def arguments(self) -> tuple[int, int, int, int, int, int]:
        """The six argument registers of the trapped call."""
        words: Any = tuple(ffi.unpack(self._arguments, 6))
        return words  # type: ignore[no-any-return]  # a call of cast() would cost as much as the rest

    def set_result(self, value: int) -> None:
        """Sets what the trapped call returns."""
        lib.slot_set_result(self._hub, self.slot, value & MASK64)

    def resume(self) -> None:
        """Lets the thread run on after the queued host calls."""
        self.is_trapped = False
        self.pending_calls = 0
        lib.hub_answer(self._hub, self.slot, ACTION_RESUME, self.platform.stub_spin_us)

    def resume_with(self, value: int) -> None:
        """Sets the result and resumes, in one call into C: the hot path."""
        self.is_trapped = False
        self.pending_calls = 0
        lib.hub_answer_result(self._hub, self.slot, value & MASK64, self.platform.stub_spin_us)

    def interrupt(self) -> None:
        """Makes the thread trap soon, if it runs."""
        if not self.is_trapped and not self.space.is_dead:
            lib.thread_kill(self.space.host_pid, self.host_tid, lib.INTERRUPT_SIGNAL)
            self.is_interrupted = True
            self.platform.expect_trap(self)

    # Host calls ------------------------------------------------------------------------------------

    def queue_host_call(self, call: HostCall) -> None:
        """Queues a call for the next resume or flush; at most :data:`CALLS_AT_ONCE` of them."""
        number, arguments, descriptor = call
        if descriptor is not None:
            arguments = as_lent(arguments)
            self.lent.append((call, lend(descriptor)))
        self._add_call(number, arguments, descriptor is not None)

    def _add_call(self, number: int, arguments: Sequence[int], lends: bool = False) -> None:
        words = [argument & MASK64 for argument in arguments]
        if lib.slot_add_call(self._hub, self.slot, number, *words, *_NO_ARGUMENTS[len(words) :], lends):
            raise errnos.SentryBug(f"more than {CALLS_AT_ONCE} host calls queued at once")
        self.pending_calls += 1

    async def flush(self) -> list[int]:
        """Runs the queued calls, staying trapped; gives their results up to the first that failed."""
        if not self.pending_calls:
            return []
        self.is_trapped = False
        self.pending_calls = 0
        lib.hub_answer(self._hub, self.slot, ACTION_REPORT, self.platform.stub_spin_us)
        return await self.results()

    async def results(self) -> list[int]:
        """Waits for the results of a flush under way; once more, if the first wait was cancelled."""
        while not self.is_trapped and not self.space.is_dead:
            await self.gate
        self._drop_lent()
        if self.space.is_dead:
            raise errnos.ESRCH("the guest's host process has died")
        done = lib.slot_calls_done(self._hub, self.slot)
        if done < 0:
            self.platform.kill(self.space)
            raise errnos.ESRCH("a guest answered in the stub's place")
        return [lib.slot_call_result(self._hub, self.slot, index) for index in range(done)]

    def _drop_lent(self) -> None:
        while self.lent:
            os.close(self.lent.popleft()[1])

    async def compare_exchange(self, address: int, expected: int, new: int) -> int:
        """Compares and exchanges a word of guest memory, in the guest's own process."""
        self.space.read(address, 4)
        self._add_call(lib.CALL_COMPARE_EXCHANGE, [address, expected, new])
        return (await self.flush())[-1] & 0xFFFFFFFF

    # Registers -------------------------------------------------------------------------------------

    def get_registers(self) -> Registers:
        """Copies the registers from the frame."""
        values = ffi.new(_REGISTERS)
        lib.slot_get_registers(self._hub, self.slot, values)
        registers = Registers(values)
        registers.ss = 0x2B
        registers.orig_rax = self._record.number if self._record.signo == SIGSYS else MASK64
        registers.fs_base, registers.gs_base = self.fs_base, self.gs_base
        return registers

    def set_registers(self, registers: Registers) -> None:
        """Writes the registers to the frame; selectors are always those of 64-bit user code."""
        values = ffi.new(_REGISTERS, [value & MASK64 for value in registers.values()])
        lib.slot_set_registers(self._hub, self.slot, values)

    def get_fpstate(self) -> bytes:
        """Copies the FP state, as the host kernel laid it out."""
        image = ffi.new("char[]", _FPSTATE_MAX)
        size = lib.slot_get_fpstate(self._hub, self.slot, image)
        return bytes(ffi.buffer(image, size))

    def set_fpstate(self, image: bytes) -> None:
        """Installs an FP state after checking it; EINVAL if the processor would refuse it."""
        if lib.slot_set_fpstate(self._hub, self.slot, ffi.from_buffer(image), len(image)):
            raise errnos.EINVAL("malformed FP state")

    def set_fs_base(self, address: int) -> None:
        """Queues the change of the thread pointer."""
        self.fs_base = address
        self._add_call(SYS_ARCH_PRCTL, [ARCH_SET_FS, address])

    def set_gs_base(self, address: int) -> None:
        """Queues the change of the GS base."""
        self.gs_base = address
        self._add_call(SYS_ARCH_PRCTL, [ARCH_SET_GS, address])

    # Birth and death -------------------------------------------------------------------------------

    async def wait_newborn(self) -> None:
        """Waits until the host thread has arrived in its slot."""
        while not self.is_trapped and not self.space.is_dead:
            await self.gate
        if self.space.is_dead or self._record.kind != KIND_NEWBORN:
            raise errnos.EAGAIN("a guest process died at birth")

    def taken(self) -> None:
        """Called by the pump, outside any task, when a trap of this thread was taken."""
        self.is_trapped = True
        self.is_interrupted = False
        self.gate.fire()

    async def destroy(self) -> None:
        """Ends the host thread; with the last one the process goes."""
        self._drop_lent()
        space = self.space
        if self not in space.contexts:
            return
        space.contexts.discard(self)
        if not space.contexts:
            self.platform.kill(space)
            self.platform.release_slots(space)
        elif not space.is_dead:
            self.platform.retire(self)
            self._record.call_count = 0
            self._add_call(SYS_EXIT, [0])
            lib.hub_answer(self._hub, self.slot, ACTION_RESUME, 0)
            if space.memory_tid == self.host_tid:
                space.memory_tid = next(iter(space.contexts)).host_tid
