"""Threads that end, or become another program, while others of their process are at the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from guest_thread import make_guest, settle
from sandbox_of_coroutines import A, Sandbox

from asyncsentry.abi import sched_h as abi
from asyncsentry.errnos import EAGAIN
from asyncsentry.platforms.fake import FakeContext
from asyncsentry.syscalls.registry import ROWS
from asyncsentry.tasks.exit import exit_other_threads
from asyncsentry.tasks.thread import Thread

CLONE, EXECVE, EXIT_GROUP, PAUSE = 56, 59, 231, 34
THREAD = abi.CLONE_VM | abi.CLONE_FS | abi.CLONE_FILES | abi.CLONE_SIGHAND | abi.CLONE_THREAD


async def test_of_two_threads_that_exec_at_once_one_goes_on() -> None:
    first = await make_guest()
    second = first.add_thread()
    winner = await first.start(exit_other_threads(first.thread))
    with pytest.raises(EAGAIN):
        await exit_other_threads(second.thread)
    assert not first.thread.kill_pending
    del first.thread.process.threads[second.thread.tid]
    first.thread.process.thread_queue.notify(1)
    await asyncio.wait_for(winner, 1)


async def test_a_thread_born_while_another_execs_ends_with_the_rest() -> None:
    async def newborn(guest: FakeContext) -> None:
        guest.memory.write(A, b"ran")
        await guest.syscall(PAUSE)

    async def cloner(guest: FakeContext) -> None:
        guest.child_program = newborn
        await guest.syscall(CLONE, THREAD, A + 0x8000, 0, 0, 0)

    async def init(guest: FakeContext) -> None:
        guest.child_program = cloner
        await guest.syscall(CLONE, THREAD, A + 0x8000, 0, 0, 0)
        assert await guest.syscall(EXECVE) == 0
        assert guest.memory.read(A, 3) == bytes(3)
        await guest.syscall(EXIT_GROUP, 7)

    async with Sandbox() as sandbox:
        make, is_cloning, is_execing = sandbox.platform.clone, asyncio.Event(), asyncio.Event()

        async def slow_clone(context: FakeContext) -> FakeContext:
            if context.child_program is newborn:
                is_cloning.set()
                await is_execing.wait()
                await settle()
            return await make(context)

        async def half_of_execve(thread: Thread) -> int:
            await is_cloning.wait()
            is_execing.set()
            await exit_other_threads(thread)
            return len(thread.process.threads) - 1

        sandbox.platform.clone = slow_clone  # type: ignore[method-assign]
        rows = sandbox.kernel.dispatch.rows
        rows[EXECVE] = replace(ROWS[CLONE], invoke=half_of_execve)
        assert await sandbox.run(init) == 7 << 8


async def test_what_a_process_holds_is_released_though_its_last_threads_end_at_once() -> None:
    async def sleeper(guest: FakeContext) -> None:
        await guest.syscall(PAUSE)

    async def init(guest: FakeContext) -> None:
        guest.child_program = sleeper
        await guest.syscall(CLONE, THREAD, A + 0x8000, 0, 0, 0)
        await guest.syscall(EXIT_GROUP, 0)

    async with Sandbox() as sandbox:
        process = await sandbox.spawn(init)
        process.is_vforked = True
        await sandbox.until(lambda: process.is_zombie)
        assert not process.is_vforked, "whoever made it by vfork(2) sleeps for ever"
        assert process.leaving_count == 0
