"""Guests that turn on the stub of the systrap platform."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from machine_code import CODE, DATA, SPIN, SYSCALL, call, guest, next_trap

from asyncsentry import errnos
from asyncsentry.platforms._native import lib
from asyncsentry.platforms.base import HostCall, Platform, TrapKind
from asyncsentry.platforms.ptrace.tracee import stub_text

MAP_SHARED, MAP_FIXED = 0x01, 0x10

pytestmark = pytest.mark.parametrize("platform", ["systrap"], indirect=True)

STUB_SYSCALLS = [
    (2, "open"), (41, "socket"), (57, "fork"), (59, "execve"), (62, "kill"), (9, "mmap of a descriptor"), (56, "clone"),
    (11, "munmap of the stub"), (10, "mprotect of the stub"), (25, "mremap of the slots"), (28, "madvise"),
    (157, "prctl"), (101, "ptrace"), (310, "process_vm_readv"), (0x3FF0, "doorbell"),
]  # fmt: skip


@pytest.mark.parametrize("number", [number for number, _ in STUB_SYSCALLS], ids=[name for _, name in STUB_SYSCALLS])
async def test_a_jump_to_the_stubs_syscall_instruction_gains_nothing(platform: Platform, number: int) -> None:
    text = stub_text()
    site = text.index(SYSCALL)
    context = await guest(platform, SPIN)
    registers = context.get_registers()
    registers.rip = lib.STUB_BASE + site
    registers.rax, registers.rdi, registers.rsi, registers.rdx = number, lib.STUB_BASE, 4096, 7
    registers.r10, registers.r8 = 2, lib.LENT_FD
    context.set_registers(registers)
    bystander = await guest(platform, call(39))
    context.resume()
    await asyncio.wait({asyncio.ensure_future(context.wait_trap())}, timeout=0.2)
    await context.destroy()
    bystander.resume()
    assert await next_trap(bystander) is TrapKind.SYSCALL


async def test_a_child_whose_parent_denies_it_is_forgotten(platform: Platform) -> None:
    parent: Any = await guest(platform, SPIN)
    inner: Any = platform
    flush = parent.flush

    async def lie() -> list[int]:
        await flush()
        while not inner._birth.child.host_tid:
            await asyncio.sleep(0)
        return [-errnos.EAGAIN.errno]

    parent.flush = lie
    with pytest.raises(errnos.EAGAIN):
        await platform.fork(parent)
    assert all(context in context.space.contexts for context in inner._contexts.values())
    parent.flush = flush
    child = await platform.fork(parent)
    assert child.space.read(CODE, 2) == SPIN


async def test_slots_and_files_lent_at_once_are_not_mixed_up(platform: Platform) -> None:
    first = await guest(platform, SPIN)
    space: Any = first.space
    second = await platform.clone(first)
    fd = os.memfd_create("file")
    os.write(fd, b"file" * 1024)
    mapping = HostCall(9, (DATA, 4096, 1, MAP_SHARED | MAP_FIXED, 0, 0), fd)
    for _ in range(40):
        space.free_slots.clear()
        first.queue_host_call(mapping)
        results, _ = await asyncio.wait_for(asyncio.gather(first.flush(), platform.clone(second)), 5)
        assert results == [DATA]
        assert space.read(DATA, 4) == b"file"
    os.close(fd)


async def test_a_sandbox_that_has_lost_its_zygote_says_so(platform: Platform) -> None:
    failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    platform.on_failure = failed.set_result
    inner: Any = platform
    os.kill(inner._zygote_pid, signal.SIGKILL)
    assert "zygote" in str(await asyncio.wait_for(failed, 5))
