"""Signal frames and siginfo, byte for byte, against what Linux lays out."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import pytest
from guest_thread import A, make_guest
from hypothesis import given
from hypothesis import strategies as st

from asyncsentry.abi import sigframe_h as frame_abi
from asyncsentry.abi import signal_h as abi
from asyncsentry.errnos import EFAULT, EINVAL
from asyncsentry.platforms.base import Fault, Registers
from asyncsentry.tasks.signals import Action, AltStack, SigInfo, fault_to_siginfo
from asyncsentry.tasks.signals.frame import pop_frame, push_frame

STACK_TOP = A + 0x8000
ACTION = Action(0x5000, abi.SA_RESTORER | abi.SA_SIGINFO, 0x6000, 0)


def xsave_image(size: int = 832) -> bytes:
    """Gives an image as Linux writes it: x87, SSE and AVX, with its magic words."""
    image = bytearray(size + 4)
    image[0:2] = (0x37F).to_bytes(2, "little")
    struct.pack_into("<IIQI", image, 464, frame_abi.FP_XSTATE_MAGIC1, size + 4, 7, size)
    struct.pack_into("<Q", image, 512, 7)
    struct.pack_into("<I", image, size, frame_abi.FP_XSTATE_MAGIC2)
    return bytes(image)


def registers() -> Registers:
    regs = Registers()
    for number, name in enumerate(Registers.NAMES):
        setattr(regs, name, 0x1000 + number)
    regs.rsp, regs.eflags, regs.cs, regs.ss = STACK_TOP, 0x646, 0x33, 0x2B
    return regs


async def test_the_frame_has_linux_layout_and_alignment() -> None:
    guest = await make_guest()
    thread = guest.thread
    context: Any = thread.context
    context.set_registers(registers())
    context.set_fpstate(xsave_image())
    thread.signal_mask = 0x200
    thread.last_fault = Fault(11, 1, 0xDEAD000, 14, 6)
    await push_frame(thread, ACTION, SigInfo(11, abi.SEGV_MAPERR, address=0xDEAD000))

    now = context.get_registers()
    frame = guest.memory.read(now.rsp, frame_abi.RT_SIGFRAME_SIZE)
    words = struct.unpack("<55Q", frame)
    assert now.rsp % 16 == 8
    assert (now.rdi, now.rip, now.rax) == (11, 0x5000, 0)
    assert (now.rdx, now.rsi) == (now.rsp + 8, now.rsp + 8 + 304)
    assert not now.eflags & (frame_abi.EFLAGS_DF | frame_abi.EFLAGS_TF)
    assert words[0] == 0x6000
    assert words[1] == 7
    old = registers()
    # uc_mcontext begins at word 6: r8 … r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags
    assert words[6:24] == (
        old.r8, old.r9, old.r10, old.r11, old.r12, old.r13, old.r14, old.r15, old.rdi, old.rsi, old.rbp, old.rbx,
        old.rdx, old.rax, old.rcx, old.rsp, old.rip, old.eflags,
    )  # fmt: skip
    assert words[25:29] == (6, 14, 0x200, 0xDEAD000)
    assert words[29] % 64 == 0
    assert guest.memory.read(words[29], 836) == xsave_image()
    assert words[29] + 836 <= STACK_TOP - frame_abi.RED_ZONE_SIZE
    assert words[38] == 0x200
    assert struct.unpack_from("<iiiiQ", frame, 312)[::2] == (11, 1, 0xDEAD000)
    assert context.get_fpstate() == b""


async def test_returning_restores_registers_mask_and_fp_state() -> None:
    guest = await make_guest()
    thread = guest.thread
    context: Any = thread.context
    context.set_registers(registers())
    context.set_fpstate(xsave_image())
    thread.signal_mask = 0x200
    await push_frame(thread, ACTION, SigInfo(10))
    thread.signal_mask = 0xFFFF
    returning = context.get_registers()
    returning.rsp += 8
    context.set_registers(returning)
    context.set_fpstate(bytes(416) + xsave_image()[416:])
    pop_frame(thread)
    restored = context.get_registers()
    for name in Registers.NAMES:
        if name not in ("cs", "ss", "orig_rax"):
            assert getattr(restored, name) == getattr(registers(), name), name
    assert thread.signal_mask == 0x200
    assert context.get_fpstate() == xsave_image()


async def test_an_autodisarmed_alternate_stack_is_off_in_the_handler_and_back_afterwards() -> None:
    guest = await make_guest()
    thread = guest.thread
    context: Any = thread.context
    context.set_registers(registers())
    stack = AltStack(A + 0x1000, abi.SS_AUTODISARM, 0x2000)
    thread.alt_stack = stack
    await push_frame(thread, ACTION._replace(flags=ACTION.flags | abi.SA_ONSTACK), SigInfo(10))
    assert thread.alt_stack == AltStack()
    returning = context.get_registers()
    assert stack.holds(returning.rsp)
    returning.rsp += 8
    context.set_registers(returning)
    context.set_fpstate(b"")
    pop_frame(thread)
    assert thread.alt_stack == stack


async def test_a_frame_that_does_not_fit_the_alternate_stack_is_refused() -> None:
    guest = await make_guest()
    thread = guest.thread
    thread.context.set_registers(registers())
    thread.alt_stack = AltStack(A + 0x1000, 0, 256)
    with pytest.raises(EFAULT):
        await push_frame(thread, ACTION._replace(flags=ACTION.flags | abi.SA_ONSTACK), SigInfo(10))
    with pytest.raises(EFAULT):
        await push_frame(thread, ACTION._replace(flags=abi.SA_SIGINFO), SigInfo(10))


async def test_a_legacy_fp_image_is_widened_to_what_the_processor_has() -> None:
    guest = await make_guest()
    context: Any = guest.thread.context
    context.set_fpstate(xsave_image())
    context.set_registers(registers())
    await push_frame(guest.thread, ACTION, SigInfo(10))
    at_handler = context.get_registers()
    fp_address = guest.memory.read_u64(at_handler.rsp + 29 * 8)
    guest.memory.write_u32(fp_address + 464, 0)
    guest.memory.write_u32(fp_address + 24, 0x1FC0)
    at_handler.rsp += 8
    context.set_registers(at_handler)
    context.set_fpstate(xsave_image())
    pop_frame(guest.thread)
    image = context.get_fpstate()
    assert len(image) == 836
    assert image[24:28] == (0x1FC0).to_bytes(4, "little")
    assert image[512:520] == (3).to_bytes(8, "little")


@given(st.binary(min_size=312, max_size=312), st.sampled_from([0, 8, 464, 0x7FFF_FFFF_FFF0]))
def test_hostile_frames_are_refused_or_restored_but_never_surprise(frame: bytes, fp_address: int) -> None:
    async def check() -> None:
        guest = await make_guest()
        where = A + 0x4000
        image = bytearray(frame)
        struct.pack_into("<Q", image, 29 * 8, A + fp_address if fp_address < 4096 else fp_address)
        if image[0] & 1:
            struct.pack_into("<H", image, 24 * 8, 0x33)
            image[8] &= ~4
        guest.memory.write(where, bytes(image))
        regs = Registers()
        regs.rsp = where + 8
        guest.thread.context.set_registers(regs)
        with contextlib.suppress(EFAULT, EINVAL):
            pop_frame(guest.thread)
        assert not guest.thread.signal_mask & (1 << 8 | 1 << 18)

    asyncio.run(check())


@pytest.mark.parametrize(("info", "words"), [
    (SigInfo(10, abi.SI_USER, pid=5, uid=6), (10, 0, 0, 0, 5, 6)),
    (SigInfo(10, abi.SI_QUEUE, pid=5, uid=6, value=7), (10, 0, -1, 0, 5, 6, 7)),
    (SigInfo(14, abi.SI_TIMER, timerid=2, overrun=3, value=9), (14, 0, -2, 0, 2, 3, 9)),
    (SigInfo(17, abi.CLD_EXITED, pid=5, uid=6, status=4, utime=30_000_000, stime=10_000_000),
     (17, 0, 1, 0, 5, 6, 4, 0, 3, 0, 1)),
    (SigInfo(29, abi.POLL_IN, band=0x41, fd=3), (29, 0, 1, 0, 0x41, 0, 3)),
    (SigInfo(31, abi.SYS_SECCOMP, address=0x1000, syscall=39), (31, 0, 1, 0, 0x1000, 0, 39, 0xC000003E - (1 << 32))),
    (fault_to_siginfo(Fault(8, abi.FPE_INTDIV, 0x401000, 0, 0)), (8, 0, 1, 0, 0x401000)),
])  # fmt: skip
def test_siginfo_is_laid_out_as_linux_does(info: SigInfo, words: tuple[int, ...]) -> None:
    data = info.to_bytes()
    assert len(data) == 128
    assert struct.unpack_from(f"<{len(words)}i", data) == words


@given(st.binary(min_size=128, max_size=128))
def test_a_siginfo_made_up_by_a_guest_reaches_the_handler_unchanged(data: bytes) -> None:
    info = SigInfo.from_bytes(data).with_signo(40)
    assert info.to_bytes() == (40).to_bytes(4, "little") + data[4:48] + bytes(80)
