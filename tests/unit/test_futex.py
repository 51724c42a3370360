"""Threads that sleep on words of memory."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import pytest
from sandbox_of_coroutines import A, Sandbox

from asyncsentry.abi import futex_h as abi
from asyncsentry.abi.sched_h import CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM
from asyncsentry.errnos import EAGAIN, EDEADLK, EINVAL, ENOSYS, EPERM, ESRCH, ETIMEDOUT
from asyncsentry.platforms.fake import FakeContext

FUTEX, CLONE, EXIT, SCHED_YIELD, SET_ROBUST_LIST, WAITV = 202, 56, 60, 24, 273, 449
THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD
P = abi.FUTEX_PRIVATE_FLAG
X, Y, RESULTS, TIME = A, A + 4, A + 0x100, A + 0x200


def word(guest: FakeContext, address: int) -> int:
    return int.from_bytes(guest.memory.read(address, 4), "little")


def put(guest: FakeContext, address: int, value: int) -> None:
    guest.memory.write(address, value.to_bytes(4, "little"))


async def start_threads(guest: FakeContext, count: int, body: Callable[[FakeContext], Awaitable[int]]) -> None:
    """Starts threads that write 1000 + the result of ``body`` where their number says, and lets them block."""

    async def thread(other: FakeContext) -> None:
        tid = await other.syscall(186)
        put(other, RESULTS + 4 * tid, 1000 + await body(other))
        await other.syscall(EXIT, 0)

    guest.child_program = thread
    for _ in range(count):
        await guest.syscall(CLONE, THREAD, A + 0x8000, 0, 0, 0)
    await settle(guest)


async def settle(guest: FakeContext) -> None:
    for _ in range(8):
        await guest.syscall(SCHED_YIELD)


def results(guest: FakeContext) -> list[int]:
    """Gives what threads 2, 3, … returned so far; ``None`` stands for those that still sleep."""
    return [word(guest, RESULTS + 4 * tid) - 1000 for tid in range(2, 8) if word(guest, RESULTS + 4 * tid)]


async def run(program: Callable[[FakeContext], Awaitable[None]]) -> None:
    async def init(guest: FakeContext) -> None:
        await program(guest)

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0
        assert not sandbox.kernel.futexes.waiters
        assert not sandbox.kernel.futexes.pi_owners


async def test_wait_returns_at_once_when_the_word_has_changed() -> None:
    async def program(guest: FakeContext) -> None:
        put(guest, X, 5)
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAIT | P, 4, 0) == -EAGAIN.errno
        assert await guest.syscall(FUTEX, X + 2, abi.FUTEX_WAIT | P, 5, 0) == -EINVAL.errno
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAIT_BITSET | P, 5, 0, 0, 0) == -EINVAL.errno
        assert await guest.syscall(FUTEX, X, 99, 5, 0, 0, 0) == -ENOSYS.errno

    await run(program)


async def test_wake_wakes_as_many_as_asked_in_order_of_arrival() -> None:
    async def program(guest: FakeContext) -> None:
        await start_threads(guest, 3, lambda other: other.syscall(FUTEX, X, abi.FUTEX_WAIT | P, 0, 0))
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAKE | P, 2) == 2
        await settle(guest)
        assert results(guest) == [0, 0]
        assert word(guest, RESULTS + 16) == 0
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAKE | P, 100) == 1
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAKE | P, 100) == 0

    await run(program)


async def test_bitsets_choose_who_is_woken() -> None:
    async def program(guest: FakeContext) -> None:
        await start_threads(guest, 1, lambda other: other.syscall(FUTEX, X, abi.FUTEX_WAIT_BITSET | P, 0, 0, 0, 0b01))
        await start_threads(guest, 1, lambda other: other.syscall(FUTEX, X, abi.FUTEX_WAIT_BITSET | P, 0, 0, 0, 0b10))
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAKE_BITSET | P, 9, 0, 0, 0b10) == 1
        await settle(guest)
        assert (word(guest, RESULTS + 8), word(guest, RESULTS + 12)) == (0, 1000)
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAKE | P, 9) == 1

    await run(program)


async def test_cmp_requeue_moves_sleepers_to_the_second_futex() -> None:
    async def program(guest: FakeContext) -> None:
        await start_threads(guest, 3, lambda other: other.syscall(FUTEX, X, abi.FUTEX_WAIT | P, 0, 0))
        assert await guest.syscall(FUTEX, X, abi.FUTEX_CMP_REQUEUE | P, 1, 9, Y, 7) == -EAGAIN.errno
        assert await guest.syscall(FUTEX, X, abi.FUTEX_CMP_REQUEUE | P, 1, 9, Y, 0) == 3
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAKE | P, 9) == 0
        assert await guest.syscall(FUTEX, Y, abi.FUTEX_WAKE | P, 9) == 2

    await run(program)


async def test_wake_op_changes_the_second_word_and_wakes_there_if_the_old_value_passes() -> None:
    async def program(guest: FakeContext) -> None:
        put(guest, Y, 3)
        await start_threads(guest, 1, lambda other: other.syscall(FUTEX, Y, abi.FUTEX_WAIT | P, 3, 0))
        add_4_if_equal_3 = abi.FUTEX_OP_ADD << 28 | abi.FUTEX_OP_CMP_EQ << 24 | 4 << 12 | 3
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAKE_OP | P, 1, 1, Y, add_4_if_equal_3) == 1
        assert word(guest, Y) == 7

    await run(program)


async def test_a_relative_timeout_ends_the_sleep() -> None:
    async with Sandbox() as sandbox:
        outcome: list[int] = []

        async def init(guest: FakeContext) -> None:
            guest.memory.write(TIME, struct.pack("<qq", 2, 0))
            outcome.append(await guest.syscall(FUTEX, X, abi.FUTEX_WAIT | P, 0, TIME))

        process = await sandbox.spawn(init)
        for _ in range(10):
            await asyncio.sleep(0)
        sandbox.clock.advance(1_999_999_999)
        await asyncio.sleep(0)
        assert not outcome
        sandbox.clock.advance(1)
        await sandbox.until(lambda: process.is_zombie)
        assert outcome == [-ETIMEDOUT.errno]


async def test_a_pi_lock_is_handed_to_the_first_sleeper() -> None:
    async def program(guest: FakeContext) -> None:
        async def lock_and_unlock(other: FakeContext) -> int:
            assert await other.syscall(FUTEX, X, abi.FUTEX_LOCK_PI | P, 0, 0) == 0
            owner = word(other, X) & abi.FUTEX_TID_MASK
            assert await other.syscall(FUTEX, X, abi.FUTEX_UNLOCK_PI | P) == 0
            return owner

        assert await guest.syscall(FUTEX, X, abi.FUTEX_LOCK_PI | P, 0, 0) == 0
        assert word(guest, X) == 1
        assert await guest.syscall(FUTEX, X, abi.FUTEX_LOCK_PI | P, 0, 0) == -EDEADLK.errno
        await start_threads(guest, 2, lock_and_unlock)
        assert word(guest, X) == 1 | abi.FUTEX_WAITERS
        assert await guest.syscall(FUTEX, X, abi.FUTEX_UNLOCK_PI | P) == 0
        await settle(guest)
        assert results(guest) == [2, 3]
        assert word(guest, X) & abi.FUTEX_TID_MASK == 0
        assert await guest.syscall(FUTEX, X, abi.FUTEX_UNLOCK_PI | P) == -EPERM.errno
        put(guest, X, 4000)
        assert await guest.syscall(FUTEX, X, abi.FUTEX_LOCK_PI | P, 0, 0) == -ESRCH.errno

    await run(program)


async def test_trylock_tells_of_a_held_pi_lock_and_the_death_of_its_owner_hands_it_on() -> None:
    async def program(guest: FakeContext) -> None:
        async def lock_and_die(other: FakeContext) -> int:
            assert await other.syscall(FUTEX, X, abi.FUTEX_LOCK_PI | P, 0, 0) == 0
            while word(other, Y) == 0:
                await other.syscall(SCHED_YIELD)
            return 0

        await start_threads(guest, 1, lock_and_die)
        assert await guest.syscall(FUTEX, X, abi.FUTEX_TRYLOCK_PI | P, 0, 0) == -EAGAIN.errno
        put(guest, Y, 1)
        assert await guest.syscall(FUTEX, X, abi.FUTEX_LOCK_PI | P, 0, 0) == 0
        assert word(guest, X) & ~abi.FUTEX_WAITERS == 1 | abi.FUTEX_OWNER_DIED

    await run(program)


async def test_requeued_waiters_own_the_lock_when_they_wake() -> None:
    async def program(guest: FakeContext) -> None:
        async def wait(other: FakeContext) -> int:
            assert await other.syscall(FUTEX, X, abi.FUTEX_WAIT_REQUEUE_PI | P, 0, 0, Y, 0) == 0
            owner = word(other, Y) & abi.FUTEX_TID_MASK
            assert await other.syscall(FUTEX, Y, abi.FUTEX_UNLOCK_PI | P) == 0
            return owner

        await start_threads(guest, 3, wait)
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAKE | P, 1) == -EINVAL.errno
        assert await guest.syscall(FUTEX, X, abi.FUTEX_CMP_REQUEUE_PI | P, 1, 9, Y, 0) == 3
        await settle(guest)
        assert results(guest) == [2, 3, 4]

    await run(program)


async def test_robust_futexes_of_a_dead_thread_are_marked_and_woken() -> None:
    head, entry, lock = A + 0x300, A + 0x320, A + 0x340

    async def program(guest: FakeContext) -> None:
        async def die_holding(other: FakeContext) -> int:
            tid = await other.syscall(186)
            put(other, lock, tid | abi.FUTEX_WAITERS)
            other.memory.write(head, struct.pack("<QqQ", entry, lock - entry, 0))
            other.memory.write(entry, struct.pack("<Q", head))
            assert await other.syscall(SET_ROBUST_LIST, head, 24) == 0
            while word(other, Y) == 0:
                await other.syscall(SCHED_YIELD)
            return 0

        await start_threads(guest, 1, die_holding)
        put(guest, Y, 1)
        assert await guest.syscall(FUTEX, lock, abi.FUTEX_WAIT | P, 2 | abi.FUTEX_WAITERS, 0) == 0
        assert word(guest, lock) == abi.FUTEX_OWNER_DIED | abi.FUTEX_WAITERS

    await run(program)


async def test_a_robust_list_that_runs_in_circles_ends() -> None:
    async def program(guest: FakeContext) -> None:
        async def die(other: FakeContext) -> int:
            other.memory.write(A + 0x300, struct.pack("<QqQ", A + 0x320, 0, 0))
            other.memory.write(A + 0x320, struct.pack("<Q", A + 0x320))
            return await other.syscall(SET_ROBUST_LIST, A + 0x300, 24)

        await start_threads(guest, 1, die)
        await settle(guest)
        assert results(guest) == [0]

    await run(program)


async def test_waitv_tells_which_futex_was_woken() -> None:
    async def program(guest: FakeContext) -> None:
        vector = A + 0x400
        rows = [(0, X, abi.FUTEX2_SIZE_U32 | P, 0), (0, Y, abi.FUTEX2_SIZE_U32 | P, 0)]
        guest.memory.write(vector, b"".join(abi.FUTEX_WAITV.pack(*row) for row in rows))
        await start_threads(guest, 1, lambda other: other.syscall(WAITV, vector, 2, 0, 0, 1))
        assert await guest.syscall(FUTEX, Y, abi.FUTEX_WAKE | P, 1) == 1
        await settle(guest)
        assert results(guest) == [1]
        assert await guest.syscall(FUTEX, X, abi.FUTEX_WAKE | P, 1) == 0

    await run(program)


@pytest.mark.parametrize("flags", [0, 0x03, 0x04 | 0x02, 0x40 | 0x02])
async def test_waitv_refuses_kinds_of_futex_there_are_not(flags: int) -> None:
    async def program(guest: FakeContext) -> None:
        guest.memory.write(A + 0x400, abi.FUTEX_WAITV.pack(0, X, flags, 0))
        assert await guest.syscall(WAITV, A + 0x400, 1, 0, 0, 1) == -EINVAL.errno

    await run(program)
