"""One guest thread on the ptrace platform."""

from __future__ import annotations

import array
import asyncio
import ctypes
import os
import signal
import socket
import struct
from typing import TYPE_CHECKING, cast

from ptrace.binding import func

from asyncsentry.gate import Gate
from asyncsentry.platforms._native import lib
from asyncsentry.platforms.base import Fault, HostCall, Registers, TrapKind
from asyncsentry.platforms.hostmemory import HostMemory
from asyncsentry.platforms.ptrace.tracee import MASK64, Gone, Tracee

if TYPE_CHECKING:
    from asyncsentry.platforms.ptrace.platform import PtracePlatform

FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)
SYS_CLOSE, SYS_RECVMSG = 3, 47
SI_KERNEL = 0x80
INT80 = b"\xcd\x80"
SOCKET_FD = lib.CHUNK_FD
"""Where every guest process holds the socket that descriptors are lent through."""
SCRATCH: int = lib.SLOTS_BASE
"""A page of our own in every guest process, for the arguments of calls in its name."""


class PtraceSpace(HostMemory):
    """A guest address space: a traced host process."""

    def __init__(self, buffer: object, vdso: tuple[int, int], pid: int) -> None:
        super().__init__(buffer, vdso)
        self.host_pid = self.memory_tid = pid
        self.contexts: set[PtraceContext] = set()
        self.is_dead = False


class PtraceContext:
    """A guest thread of execution."""

    def __init__(self, platform: PtracePlatform, space: PtraceSpace, tid: int) -> None:
        self.platform = platform
        self.space = space
        self.host_tid = tid
        self.tracee = Tracee(tid)
        self.gate = Gate(asyncio.get_running_loop())
        self.number = 0
        self.fault = Fault(0, 0, 0, 0, 0)
        self.host_error = 0
        self._kind: TrapKind | None = None
        self._calls: list[HostCall] = []
        space.contexts.add(self)

    # Traps -----------------------------------------------------------------------------------------

    def stopped(self, status: int) -> None:
        """Called by the platform, outside any task, when its host thread has stopped."""
        try:
            self._kind = self._interpret(os.WSTOPSIG(status), status >> 16)
            if self._kind is None:
                self.tracee.go_on()
                return
        except Gone:
            self._kind = TrapKind.GONE
        self.gate.fire()

    def _interpret(self, signo: int, event: int) -> TrapKind | None:
        if event:
            return None
        self.tracee.fetch()
        if signo == signal.SIGTRAP | 0x80:
            registers = self.tracee.registers
            is_compat = self.space.read_some(registers.rip - 2, 2) == INT80
            self.number = MASK64 if is_compat else registers.orig_rax
            return TrapKind.SYSCALL
        if signo == lib.INTERRUPT_SIGNAL:
            return TrapKind.INTERRUPT
        if signo not in FAULTS:
            return None
        return self._interpret_fault(signo)

    def _interpret_fault(self, signo: int) -> TrapKind | None:
        info = ctypes.create_string_buffer(128)
        self.tracee.request(func.PTRACE_GETSIGINFO, 0, ctypes.addressof(info))
        code = int.from_bytes(info.raw[8:12], "little", signed=True)
        if code <= 0:
            return None  # somebody on the host sent it: not the processor
        address = int.from_bytes(info.raw[16:24], "little")
        if code == SI_KERNEL:  # a general protection fault, which has no address
            self.fault = Fault(signo, code, 0, 13, 0)
            return TrapKind.FAULT
        trapno = {signal.SIGSEGV: 14, signal.SIGBUS: 14, signal.SIGFPE: 0, signal.SIGILL: 6, signal.SIGTRAP: 3}[
            signal.Signals(signo)
        ]
        # What the page fault wanted is not told; a write is the likelier question (stack growth).
        self.fault = Fault(signo, code, address, trapno, 6 if trapno == 14 else 0)
        return TrapKind.FAULT

    def trap(self) -> TrapKind | None:
        """Says why it has trapped."""
        return TrapKind.GONE if self.space.is_dead else self._kind

    async def wait_trap(self) -> TrapKind:
        """Waits until it traps and says why."""
        while (kind := self.trap()) is None:
            await self.gate
        return kind

    @property
    def arguments(self) -> tuple[int, int, int, int, int, int]:
        """The six argument registers."""
        registers = self.tracee.registers
        return cast("tuple[int, int, int, int, int, int]", (
            registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9))

    def set_result(self, value: int) -> None:
        """Sets ``rax``."""
        self.tracee.registers.rax = value & MASK64
        self.tracee.changed()

    def resume(self) -> None:
        """Carries out the queued calls and lets the guest run on."""
        try:
            results = self._carry_out()
            if results and results[-1] < 0:
                self.host_error = -results[-1]
                self._kind = TrapKind.HOST_CALL_FAILED
                asyncio.get_running_loop().call_soon(self.gate.fire)
                return
            self._kind = None
            self.tracee.go_on()
        except Gone:
            self.platform.lost(self.space)

    def resume_with(self, value: int) -> None:
        """Sets the result and resumes."""
        self.set_result(value)
        self.resume()

    def interrupt(self) -> None:
        """Makes it trap soon, if it runs."""
        if self._kind is None and not self.space.is_dead:
            lib.thread_kill(self.space.host_pid, self.host_tid, lib.INTERRUPT_SIGNAL)

    # Calls in its name -----------------------------------------------------------------------------

    def queue_host_call(self, call: HostCall) -> None:
        """Queues a call; a descriptor is duplicated until then."""
        if call.descriptor is not None:
            call = call._replace(descriptor=os.dup(call.descriptor))
        self._calls.append(call)

    async def flush(self) -> list[int]:
        """Carries out the queued calls; gives results up to the first that failed."""
        try:
            return self._carry_out()
        except Gone:
            self.platform.lost(self.space)
            return [-3]

    def _carry_out(self) -> list[int]:
        calls, self._calls = self._calls, []
        results: list[int] = []
        for call in calls:
            arguments = list(call.arguments)
            failed = bool(results) and results[-1] < 0
            if call.descriptor is not None:
                if not failed:
                    arguments[4] = self._lend(call.descriptor)
                os.close(call.descriptor)
            if failed:
                continue
            results.append(self.tracee.call(call.number, *arguments))
            if call.descriptor is not None:
                self.tracee.call(SYS_CLOSE, arguments[4])
        return results

    def _lend(self, descriptor: int) -> int:
        """Passes a descriptor through the socket the process holds, unix(7); gives its number there."""
        rights = array.array("i", [descriptor])
        self.platform.socket.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        control, vector, byte = SCRATCH + 128, SCRATCH + 96, SCRATCH + 120
        header = struct.pack("<Q I 4x Q Q Q Q i 4x", 0, 0, vector, 1, control, 24, 0)
        self.space.poke(SCRATCH, header.ljust(96, b"\0") + struct.pack("<QQ", byte, 1))
        if self.tracee.call(SYS_RECVMSG, SOCKET_FD, SCRATCH, 0) != 1:
            raise Gone("a descriptor could not be lent")
        return int.from_bytes(self.space.peek(control + 16, 4), "little")

    async def compare_exchange(self, address: int, expected: int, new: int) -> int:
        """Compares and exchanges a word atomically."""
        return self.tracee.compare_exchange(address, expected, new)

    # Registers -------------------------------------------------------------------------------------

    def get_registers(self) -> Registers:
        """Copies the registers."""
        registers = Registers()
        for name in Registers.NAMES:
            setattr(registers, name, getattr(self.tracee.registers, name))
        return registers

    def set_registers(self, registers: Registers) -> None:
        """Installs registers; selectors stay as they are."""
        for name in Registers.NAMES:
            if name not in ("cs", "ss", "ds", "es", "fs", "gs", "orig_rax"):
                setattr(self.tracee.registers, name, getattr(registers, name) & MASK64)
        self.tracee.registers.eflags = registers.eflags & 0x244DD5 | 0x202
        self.tracee.changed()

    def get_fpstate(self) -> bytes:
        """Copies the FP state."""
        return self.tracee.get_fpstate()

    def set_fpstate(self, image: bytes) -> None:
        """Installs a checked FP state."""
        self.tracee.set_fpstate(image)

    def set_fs_base(self, address: int) -> None:
        """Sets the thread pointer."""
        self.tracee.registers.fs_base = address
        self.tracee.changed()

    def set_gs_base(self, address: int) -> None:
        """Sets the other one."""
        self.tracee.registers.gs_base = address
        self.tracee.changed()

    async def destroy(self) -> None:
        """Ends the host thread; with the last one the process goes."""
        for call in self._calls:
            if call.descriptor is not None:
                os.close(call.descriptor)
        self._calls.clear()
        if self in self.space.contexts:
            self.space.contexts.discard(self)
            self.platform.retire(self)
