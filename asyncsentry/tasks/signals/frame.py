"""Signal frames: what a handler finds on its stack, and going back from one. x86-64, rt_sigreturn(2).

The layout is Linux's to the byte, since unwinders, debuggers and runtimes read it and edit it. After
arch/x86/kernel/signal.c and signal_64.c.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from asyncsentry.abi import sigframe_h as abi
from asyncsentry.abi.signal_h import SA_ONSTACK, SA_RESTORER, SS_AUTODISARM
from asyncsentry.errnos import EFAULT, EINVAL, LinuxError
from asyncsentry.tasks.signals.altstack import set_alt_stack
from asyncsentry.tasks.signals.state import AltStack

if TYPE_CHECKING:
    from asyncsentry.platforms.base import Registers
    from asyncsentry.tasks.signals.actions import Action
    from asyncsentry.tasks.signals.siginfo import SigInfo
    from asyncsentry.tasks.thread import Thread

_ADDRESS_MASK = (1 << 64) - 1
_PAGE_FAULT = 14
_general_registers = attrgetter(*abi.SIGCONTEXT_REGISTERS)
_BASE_FLAGS = abi.UC_SIGCONTEXT_SS | abi.UC_STRICT_RESTORE_SS
_XSTATE_MIN_SIZE = abi.FXSAVE_SIZE + abi.XSAVE_HEADER_SIZE
_XSTATE_BV = slice(abi.FXSAVE_SIZE, abi.FXSAVE_SIZE + 8)
_X87_AND_SSE = 3
_MAGIC2 = abi.FP_XSTATE_MAGIC2.to_bytes(4, "little")


async def push_frame(thread: Thread, action: Action, info: SigInfo) -> None:
    """Writes a frame to the guest's stack and points the registers at the handler; EFAULT if it cannot."""
    if not action.flags & SA_RESTORER:
        raise EFAULT("x86-64 handlers need a restorer")
    context = thread.context
    registers = context.get_registers()
    fpstate = context.get_fpstate()
    stack_top = _stack_for(thread, action, registers.rsp)
    fp_address = (stack_top - len(fpstate)) & -abi.FPSTATE_ALIGNMENT
    frame_address = ((fp_address - abi.RT_SIGFRAME_SIZE) & -abi.FRAME_ALIGNMENT) - 8
    _check_fits(thread, registers.rsp, stack_top, frame_address)
    head = _pack(thread, action, registers, fp_address if fpstate else 0)
    image = head + info.to_bytes()
    await _write(thread, frame_address, image + bytes(fp_address - frame_address - len(image)) + fpstate)
    _aim(registers, frame_address, action, info.signo)
    context.set_registers(registers)
    if fpstate:
        context.set_fpstate(b"")
    if thread.alt_stack.flags & SS_AUTODISARM:
        thread.alt_stack = AltStack()


def pop_frame(thread: Thread) -> None:
    """Takes everything back from the frame below the stack pointer; a LinuxError if it is no good frame."""
    context = thread.context
    registers = context.get_registers()
    frame_address = (registers.rsp - 8) & _ADDRESS_MASK
    (_, uc_flags, _, alt_address, alt_flags, alt_size, *words, mask) = abi.RT_SIGFRAME.unpack(
        thread.memory.read(frame_address, abi.RT_SIGFRAME.size)
    )
    thread.signal_mask = mask
    general, (cs, _, _, ss), fp_address = words[:18], words[18:22], words[26]
    if cs | 3 != abi.USER_CS or (uc_flags & abi.UC_STRICT_RESTORE_SS and ss | 3 != abi.USER_DS):
        raise EINVAL("segments of no 64-bit program")
    eflags = registers.eflags & ~abi.EFLAGS_RESTORED
    (
        registers.r8, registers.r9, registers.r10, registers.r11, registers.r12, registers.r13, registers.r14,
        registers.r15, registers.rdi, registers.rsi, registers.rbp, registers.rbx, registers.rdx, registers.rax,
        registers.rcx, registers.rsp, registers.rip, registers.eflags,
    ) = general  # fmt: skip
    registers.eflags = eflags | registers.eflags & abi.EFLAGS_RESTORED
    registers.cs, registers.ss = abi.USER_CS, abi.USER_DS
    context.set_fpstate(_read_fpstate(thread, fp_address) if fp_address else b"")
    context.set_registers(registers)
    try:
        set_alt_stack(thread, AltStack(alt_address, alt_flags, alt_size), registers.rsp)
    except LinuxError:
        pass  # as Linux does: a handler may have put anything there


def _stack_for(thread: Thread, action: Action, stack_pointer: int) -> int:
    """Gives where the frame may begin, downwards."""
    stack_pointer -= abi.RED_ZONE_SIZE
    alt_stack = thread.alt_stack
    if action.flags & SA_ONSTACK and alt_stack.flags_at(stack_pointer) == 0:
        return alt_stack.address + alt_stack.size
    return stack_pointer


def _check_fits(thread: Thread, stack_pointer: int, stack_top: int, frame_address: int) -> None:
    """EFAULT if a frame would overflow the alternate stack (or the address space): better die than corrupt."""
    alt_stack = thread.alt_stack
    nested = not alt_stack.flags & SS_AUTODISARM and alt_stack.holds(stack_pointer)
    entering = stack_top != stack_pointer - abi.RED_ZONE_SIZE
    if frame_address < 0 or ((nested or entering) and not alt_stack.holds(frame_address)):
        raise EFAULT("the alternate signal stack is too small")


async def _write(thread: Thread, address: int, image: bytes) -> None:
    """Writes a frame, letting the stack grow to hold it."""
    try:
        thread.memory.write(address, image)
    except EFAULT:
        if not await thread.memory.handle_fault(thread.context, address, thread.process.limits):
            raise
        await thread.memory.flush(thread.context)
        thread.memory.write(address, image)


def _pack(thread: Thread, action: Action, registers: Registers, fp_address: int) -> bytes:
    mask = thread.signal_mask if thread.saved_signal_mask is None else thread.saved_signal_mask
    fault, alt_stack = thread.last_fault, thread.alt_stack
    return abi.RT_SIGFRAME.pack(
        action.restorer, _BASE_FLAGS | (abi.UC_FP_XSTATE if fp_address else 0), 0, alt_stack.address,
        alt_stack.flags, alt_stack.size, *_general_registers(registers),
        registers.cs, 0, 0, registers.ss, fault.error & _ADDRESS_MASK, fault.trapno, mask,
        fault.address & _ADDRESS_MASK if fault.trapno == _PAGE_FAULT else 0, fp_address, mask,
    )  # fmt: skip


def _aim(registers: Registers, frame_address: int, action: Action, signo: int) -> None:
    """Makes the registers those of a call ``handler(signo, &info, &ucontext)``."""
    registers.rdi = signo
    registers.rsi = frame_address + abi.SIGINFO_OFFSET
    registers.rdx = frame_address + abi.UCONTEXT_OFFSET
    registers.rax = 0
    registers.rip = action.handler
    registers.rsp = frame_address
    registers.cs, registers.ss = abi.USER_CS, abi.USER_DS
    registers.eflags &= ~(abi.EFLAGS_DF | abi.EFLAGS_RF | abi.EFLAGS_TF)


def _read_fpstate(thread: Thread, address: int) -> bytes:
    """Gives the FP state a frame points to as a full image of this processor; what the guest left out is initial."""
    image = bytearray(thread.context.get_fpstate())
    room = len(image) - len(_MAGIC2)
    if room < _XSTATE_MIN_SIZE:
        raise EINVAL("no FP state to restore")
    content, features = _copy_fpstate(thread, address, room)
    known = abi.FPX_SW_BYTES.unpack_from(image, abi.FPX_SW_BYTES_OFFSET)[2]
    image[: abi.FPX_SW_BYTES_OFFSET] = content[: abi.FPX_SW_BYTES_OFFSET]
    image[abi.FXSAVE_SIZE : room] = content[abi.FXSAVE_SIZE :].ljust(room - abi.FXSAVE_SIZE, b"\0")
    present = int.from_bytes(image[_XSTATE_BV], "little") & ~(known & ~features)
    image[_XSTATE_BV] = (present if len(content) > abi.FXSAVE_SIZE else _X87_AND_SSE).to_bytes(8, "little")
    return bytes(image)


def _copy_fpstate(thread: Thread, address: int, room: int) -> tuple[bytes, int]:
    """Copies an XSAVE image (and which features it is to restore) if it is credibly one, else the old 512 bytes.

    The kernel's check_xstate_in_sigframe().
    """
    legacy = thread.memory.read(address, abi.FXSAVE_SIZE)
    magic, extended_size, features, size = abi.FPX_SW_BYTES.unpack_from(legacy, abi.FPX_SW_BYTES_OFFSET)
    alignment, content = abi.FRAME_ALIGNMENT, legacy
    if magic == abi.FP_XSTATE_MAGIC1 and _XSTATE_MIN_SIZE <= size <= min(room, extended_size):
        image = thread.memory.read(address, size + len(_MAGIC2))
        if image[size:] == _MAGIC2:
            alignment, content = abi.FPSTATE_ALIGNMENT, image[:size]
    if address % alignment:
        raise EINVAL(f"FP state at {address:#x} is not aligned")
    return content, features
