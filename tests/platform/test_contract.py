"""What every platform does: traps, registers, births and deaths."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from machine_code import CODE, DATA, INT3, MASK64, MOV_EAX, SPIN, UD2, call, guest, next_trap

from asyncsentry import errnos
from asyncsentry.platforms._native import lib
from asyncsentry.platforms.base import HostCall, Platform, TrapKind


async def test_a_call_traps_with_its_number_and_arguments(platform: Platform) -> None:
    context = await guest(platform, call(39) + call(231))
    registers = context.get_registers()
    registers.rdi, registers.rsi, registers.rdx = 1, MASK64, 3
    registers.r10, registers.r8, registers.r9 = 4, 5, 6
    context.set_registers(registers)
    context.resume()
    assert await next_trap(context) is TrapKind.SYSCALL
    assert context.number == 39
    assert context.arguments == (1, MASK64, 3, 4, 5, 6)
    context.resume_with(-5)
    assert await next_trap(context) is TrapKind.SYSCALL
    assert context.number == 231


async def test_results_and_registers_reach_the_guest(platform: Platform) -> None:
    context = await guest(platform, call(39) + b"\x48\x89\xc3" + call(231))  # mov rbx, rax
    context.resume()
    await next_trap(context)
    context.resume_with(-38)
    await next_trap(context)
    assert context.get_registers().rbx == -38 & MASK64


@pytest.mark.parametrize(("code", "signo"), [
    (UD2, signal.SIGILL), (INT3, signal.SIGTRAP), (b"\x48\x8b\x04\x25\x00\x10\x00\x00", signal.SIGSEGV),
    (b"\x31\xc9\xf7\xf1", signal.SIGFPE),
])  # fmt: skip
async def test_a_fault_is_reported(platform: Platform, code: bytes, signo: int) -> None:
    context = await guest(platform, code)
    context.resume()
    assert await next_trap(context) is TrapKind.FAULT
    assert context.fault.signo == signo
    if signo == signal.SIGSEGV:
        assert context.fault.address == 0x1000


async def test_running_code_can_be_interrupted(platform: Platform) -> None:
    context = await guest(platform, SPIN)
    context.resume()
    context.interrupt()
    assert await next_trap(context) is TrapKind.INTERRUPT
    assert context.get_registers().rip == CODE


async def test_fork_copies_memory_and_registers(platform: Platform) -> None:
    context = await guest(platform, call(57) + call(231))
    context.space.write(DATA, b"before")
    context.resume()
    await next_trap(context)
    child = await platform.fork(context)
    context.space.write(DATA, b"parent")
    assert child.space.read(DATA, 6) == b"before"
    assert child.get_registers().rip == context.get_registers().rip
    child.resume_with(0)
    assert await next_trap(child) is TrapKind.SYSCALL
    assert child.number == 231
    await child.destroy()


async def test_threads_share_memory_and_come_in_any_number(platform: Platform) -> None:
    context = await guest(platform, call(56) + call(60))
    context.resume()
    await next_trap(context)
    threads = [await platform.clone(context) for _ in range(70)]
    context.space.write(DATA, b"shared")
    assert all(thread.space.read(DATA, 6) == b"shared" for thread in threads)
    for thread in threads:
        thread.resume_with(0)
    for thread in threads:
        assert await next_trap(thread) is TrapKind.SYSCALL
        assert thread.number == 60
        await thread.destroy()
    again = await platform.clone(context)
    await again.destroy()


async def test_fp_state_is_kept_and_checked(platform: Platform) -> None:
    context = await guest(platform, b"\xc5\xfd\x6f\x04\x25" + DATA.to_bytes(4, "little") + call(39) + call(39))
    context.space.write(DATA, bytes(range(32)))  # vmovdqa ymm0, [DATA]
    context.resume()
    await next_trap(context)
    image = context.get_fpstate()
    assert bytes(range(16)) in image
    assert bytes(range(16, 32)) in image
    context.set_fpstate(image)
    with pytest.raises(errnos.EINVAL):
        context.set_fpstate(image[:-1])
    broken = bytearray(image)
    broken[512:520] = b"\xff" * 8
    with pytest.raises(errnos.EINVAL):
        context.set_fpstate(bytes(broken))
    context.set_fpstate(b"")
    assert bytes(range(16)) not in context.get_fpstate()


async def test_memory_access_honours_protection(platform: Platform) -> None:
    context = await guest(platform, call(39))
    context.queue_host_call(HostCall(10, (DATA, 4096, 1)))
    await context.flush()
    with pytest.raises(errnos.EFAULT):
        context.space.write(DATA, b"x")
    for address in (0, 0x600000, lib.STUB_BASE, lib.SLOTS_BASE, MASK64, MASK64 - 2):
        with pytest.raises(errnos.EFAULT):
            context.space.read(address, 8)
    assert context.space.read_some(DATA + 4090, 100) == bytes(6)


async def test_a_failed_host_call_is_reported(platform: Platform) -> None:
    context = await guest(platform, call(39))
    context.resume()
    await next_trap(context)
    context.queue_host_call(HostCall(11, (DATA + 1, 4096)))  # munmap of an unaligned address
    context.resume()
    assert await next_trap(context) is TrapKind.HOST_CALL_FAILED
    assert context.host_error == errnos.EINVAL.errno


async def test_descriptors_are_lent_for_one_mapping(platform: Platform) -> None:
    context = await guest(platform, call(39))
    fd = os.memfd_create("test")
    os.write(fd, b"from the file")
    context.queue_host_call(HostCall(9, (0x700000, 4096, 3, 0x11, 0, 0), fd))
    assert await context.flush() == [0x700000]
    assert context.space.read(0x700000, 13) == b"from the file"
    context.space.write(0x700000, b"back ")
    assert os.pread(fd, 5, 0) == b"back "
    fd_target = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    assert fd_target not in {os.readlink(entry.path) for entry in os.scandir(f"/proc/{context.space.host_pid}/fd")}


async def test_a_guest_killed_by_the_host_is_gone(platform: Platform) -> None:
    context = await guest(platform, SPIN)
    context.resume()
    os.kill(context.space.host_pid, signal.SIGKILL)
    assert await next_trap(context) is TrapKind.GONE
    with pytest.raises(errnos.EFAULT):
        context.space.read(DATA, 1)
    assert context.space.memory_tid == 0, "the memory of whoever gets the number next could be read"


@pytest.mark.parametrize("code", [b"\xcd\x80", b"\x0f\x34"], ids=["int80", "sysenter"])
async def test_32_bit_calls_do_not_reach_the_host(platform: Platform, code: bytes) -> None:
    context = await guest(platform, MOV_EAX + (20).to_bytes(4, "little") + code + SPIN)
    context.resume()
    kind = await next_trap(context)
    assert kind in (TrapKind.SYSCALL, TrapKind.FAULT)
    if kind is TrapKind.SYSCALL:
        assert context.number == MASK64


async def test_x32_numbers_trap_whole(platform: Platform) -> None:
    context = await guest(platform, call(0x40000000 | 39))
    context.resume()
    assert await next_trap(context) is TrapKind.SYSCALL
    assert context.number == 0x40000000 | 39


@pytest.mark.parametrize("platform", ["systrap"], indirect=True)
async def test_a_bug_in_the_pump_is_reported(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []
    platform.on_failure = failures.append
    context = await guest(platform, call(39))
    monkeypatch.setattr(type(context), "taken", lambda self: 1 / 0)
    context.resume()
    async with asyncio.timeout(20):
        while not failures:
            await asyncio.sleep(0.001)
    assert isinstance(failures[0], ZeroDivisionError)
