"""A traced host thread that is stopped: its registers, its FP state, and system calls made in its name.

A call in a tracee's name is one single-stepped ``syscall`` instruction of the stub. These waits are
synchronous: they take microseconds and the tracee runs nothing of the guest's. See ptrace(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import Any

from ptrace.binding import func
from ptrace.binding.linux_struct import user_regs_struct

from asyncsentry import errnos
from asyncsentry.platforms._native import ffi, lib

PTRACE_SYSEMU, PTRACE_O_EXITKILL = 31, 0x100000
NT_X86_XSTATE = 0x202
WAIT_ALL = 0x40000000
SYS_EXIT = 60
MASK64 = (1 << 64) - 1
OPTIONS = func.PTRACE_O_TRACESYSGOOD | func.PTRACE_O_TRACEFORK | func.PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL

FP_MAGIC1, FP_MAGIC2 = 0x46505853, 0x46505845
_SW_RESERVED, _HEADER, _MXCSR = 464, 512, 24
_FP_MAX = 1 << 14


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Gone(Exception):
    """The tracee died meanwhile."""


def stub_text() -> bytes:
    """Gives the stub's bytes from its base address on, as they are mapped. See elf(5)."""
    image = bytes(ffi.buffer(lib.stub_image, lib.stub_image_size))
    text = bytearray(lib.STUB_TEXT_SIZE)
    for index in range(int.from_bytes(image[56:58], "little")):
        header = image[64 + index * 56 : 120 + index * 56]
        if header[:4] == b"\x01\0\0\0":
            offset, address, size = (int.from_bytes(header[at : at + 8], "little") for at in (8, 16, 32))
            text[address - lib.STUB_BASE : address - lib.STUB_BASE + size] = image[offset : offset + size]
    return bytes(text)


SYSCALL_SITE: int = lib.STUB_BASE + stub_text().index(b"\x0f\x05")
EXCHANGE_SITE: int = lib.STUB_BASE + stub_text().index(b"\xf0\x0f\xb1\x17")


class Tracee:
    """One traced thread. Every method but :meth:`go_on` needs it stopped."""

    __slots__ = ("_dirty", "registers", "tid")

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self.registers: Any = user_regs_struct()
        self._dirty = False

    def request(self, request: int, first: Any = 0, second: Any = 0) -> int:
        """Makes one ptrace request; Gone if there is no such tracee any more."""
        try:
            result: int = func.ptrace(request, self.tid, first, second)
        except Exception as error:
            raise Gone(str(error)) from error
        return result

    def fetch(self) -> None:
        """Reads the registers after a stop."""
        self.request(func.PTRACE_GETREGS, 0, ctypes.addressof(self.registers))
        self._dirty = False

    def changed(self) -> None:
        """Notes that :attr:`registers` were edited."""
        self._dirty = True

    def go_on(self) -> None:
        """Lets guest code run on until it traps."""
        self._store()
        self.request(PTRACE_SYSEMU, 0, 0)

    def _store(self) -> None:
        if self._dirty:
            self.registers.orig_rax = MASK64  # no call to restart, whatever rax looks like
            self.request(func.PTRACE_SETREGS, 0, ctypes.addressof(self.registers))
            self._dirty = False

    def wait(self) -> int:
        """Waits for the next stop of this thread and gives its status; Gone if it ended."""
        try:
            _, status = os.waitpid(self.tid, WAIT_ALL)
        except ChildProcessError as error:
            raise Gone(str(error)) from error
        if not os.WIFSTOPPED(status):
            raise Gone(f"ended with status {status:#x}")
        return status

    def call(self, number: int, *arguments: int) -> int:
        """Makes a host system call in the tracee's name and gives its result (``-errno`` for errors)."""
        padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
        borrowed = type(self.registers).from_buffer_copy(self.registers)
        borrowed.rip, borrowed.rax, borrowed.orig_rax = SYSCALL_SITE, number, MASK64
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), padded, strict=True):
            setattr(borrowed, name, value & MASK64)
        result: int = self._step(borrowed).rax
        return result - (1 << 64) if result >> 63 else result

    def leave(self) -> None:
        """Lets the thread exit, not waiting for it: a leader's end is told only after all others are gone."""
        self.registers.rip, self.registers.rax, self.registers.rdi = SYSCALL_SITE, SYS_EXIT, 0
        self._dirty = True
        self._store()
        self.request(func.PTRACE_CONT, 0, 0)

    def compare_exchange(self, address: int, expected: int, new: int) -> int:
        """Steps over one locked compare-and-exchange in the tracee; EFAULT if it may not write there."""
        borrowed = type(self.registers).from_buffer_copy(self.registers)
        borrowed.rip, borrowed.orig_rax = EXCHANGE_SITE, MASK64
        borrowed.rdi, borrowed.rax, borrowed.rdx = address, expected, new
        result: int = self._step(borrowed, faults=True).rax
        return result & 0xFFFFFFFF

    def _step(self, borrowed: Any, faults: bool = False) -> Any:
        """Runs the one instruction at ``borrowed.rip``, restores the registers, and gives what it left in them."""
        self.request(func.PTRACE_SETREGS, 0, ctypes.addressof(borrowed))
        after = user_regs_struct()
        after.rip = site = borrowed.rip
        event = 0
        # The first step may only end the emulated call the tracee had stopped in; a birth is announced in mid-call.
        while after.rip == site or event:
            self.request(func.PTRACE_SINGLESTEP, 0, 0)
            status = self.wait()
            event, signo = status >> 16, os.WSTOPSIG(status)
            if faults and signo in (signal.SIGSEGV, signal.SIGBUS):
                self._dirty = True
                self._store()
                raise errnos.EFAULT("a word that cannot be written")
            self.request(func.PTRACE_GETREGS, 0, ctypes.addressof(after))
        self._dirty = True
        self._store()
        return after

    def bear(self, flags: int, stack: int) -> int:
        """Makes the tracee clone(2); gives the new thread, stopped before it has run anything."""
        result = self.call(56, flags, stack, 0, 0, 0)
        if result < 0:
            raise errnos.EAGAIN(f"the host made no guest thread: {os.strerror(-result)}")
        Tracee(result).wait()
        return result

    # FP state --------------------------------------------------------------------------------------

    def get_fpstate(self) -> bytes:
        """Gives the XSAVE image as a signal frame holds it: with the kernel's magic words around it."""
        buffer = ctypes.create_string_buffer(_FP_MAX)
        vector = _Iovec(ctypes.addressof(buffer), _FP_MAX)
        self.request(func.PTRACE_GETREGSET, NT_X86_XSTATE, ctypes.addressof(vector))
        image = bytearray(buffer.raw[: vector.length])
        features = image[_SW_RESERVED : _SW_RESERVED + 8]
        size = len(image) + 4
        words = struct.pack("<II8sI", FP_MAGIC1, size, features, len(image))
        image[_SW_RESERVED:_HEADER] = words.ljust(_HEADER - _SW_RESERVED, b"\0")
        return bytes(image) + FP_MAGIC2.to_bytes(4, "little")

    def set_fpstate(self, image: bytes) -> None:
        """Installs such an image, which comes from a guest: EINVAL if the kernel would refuse it."""
        present = self.get_fpstate()
        if not image:
            fresh = bytearray(len(present))
            fresh[0:2], fresh[_MXCSR : _MXCSR + 4] = b"\x7f\x03", b"\x80\x1f\0\0"
            image = bytes(fresh)
        elif len(image) != len(present) or image[_SW_RESERVED : _SW_RESERVED + 4] != present[_SW_RESERVED:][:4]:
            raise errnos.EINVAL("malformed FP state")
        raw = bytearray(image[:-4])
        raw[_SW_RESERVED:_HEADER] = present[_SW_RESERVED + 8 : _SW_RESERVED + 16].ljust(_HEADER - _SW_RESERVED, b"\0")
        buffer = ctypes.create_string_buffer(bytes(raw), len(raw))
        vector = _Iovec(ctypes.addressof(buffer), len(raw))
        try:
            self.request(func.PTRACE_SETREGSET, NT_X86_XSTATE, ctypes.addressof(vector))
        except Gone as error:
            raise errnos.EINVAL("malformed FP state") from error
