"""PI futexes, whose word names the owner: the lock is handed over, never dropped for all to race.

Unlocking writes the first sleeper's tid into the word. Priorities are the host's business, so nothing
is boosted. A word is changed with the processor's compare-and-exchange, which takes an await, and others may
act meanwhile; so a sleeper is queued *before* FUTEX_WAITERS is set, a sleeper that is being granted the lock
is off its queue and waits for the outcome, and whoever joined while a lock was freed is woken to try again.
See futex(2) "Priority-inheritance futexes".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import futex_h as abi
from asyncsentry.errnos import EAGAIN, EDEADLK, EINVAL, EPERM, ESRCH, Interrupted, LinuxError, TimedOut
from asyncsentry.tasks.futex import FutexTable, FutexWaiter, Key, futex_key, sleep
from asyncsentry.waiter import POLLIN

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

_FLAG_BITS = abi.FUTEX_WAITERS | abi.FUTEX_OWNER_DIED


async def lock(thread: Thread, address: int, deadline_ns: int | None = None, shared: bool = False,
               only_try: bool = False) -> None:
    """FUTEX_LOCK_PI and FUTEX_TRYLOCK_PI: takes the lock, sleeping while another thread holds it."""
    key = futex_key(thread, address, shared)
    table = thread.kernel.futexes
    while True:
        word = thread.memory.read_u32(address)
        owner_tid = word & abi.FUTEX_TID_MASK
        if owner_tid == thread.tid:
            raise EDEADLK("the caller holds the lock")
        if owner_tid == 0:
            if await _take_free(thread, address, word, thread):
                _note_owner(table, key, thread)
                return
            continue
        owner = _find_owner(thread, owner_tid)
        if only_try:
            raise EAGAIN("the lock is held")
        waiter = FutexWaiter(thread, address)
        try:
            if await _join(thread, key, waiter, owner, address, word) or not table.holds(waiter):
                await _sleep_for_lock(waiter, deadline_ns)
        finally:
            table.remove(waiter)
        if waiter.is_granted:
            return


async def _take_free(caller: Thread, address: int, word: int, owner: Thread, extra_bits: int = 0) -> bool:
    """Writes an owner into a word that names none; False if the word changed first."""
    new = owner.tid | word & _FLAG_BITS | extra_bits
    return await caller.context.compare_exchange(address, word, new) == word


def _note_owner(table: FutexTable, key: Key, owner: Thread) -> None:
    if key in table.waiters:
        table.pi_owners[key] = owner


def _find_owner(thread: Thread, tid: int) -> Thread:
    owner = thread.kernel.threads.get(tid)
    if owner is None:
        raise ESRCH(f"the lock's owner {tid} is gone")
    return owner


async def _join(caller: Thread, key: Key, waiter: FutexWaiter, owner: Thread, address: int, word: int) -> bool:
    """Queues a sleeper and sets FUTEX_WAITERS; False if the word changed first."""
    table = caller.kernel.futexes
    if key in table.waiters and key not in table.pi_owners:
        raise EINVAL("others sleep there without a lock")
    table.add(key, waiter)
    table.pi_owners[key] = owner
    return await caller.context.compare_exchange(address, word, word | abi.FUTEX_WAITERS) == word


async def _sleep_for_lock(waiter: FutexWaiter, deadline_ns: int | None) -> None:
    """Sleeps until granted the lock or told to try again. A grant under way when the sleep ends is awaited."""
    thread = waiter.thread
    try:
        await sleep(waiter, deadline_ns)
    except (Interrupted, TimedOut):
        if thread.kernel.futexes.holds(waiter):
            raise
        while not waiter.is_woken:
            await thread.block_uninterruptible(waiter.queue, POLLIN)
        if waiter.error is not None:
            raise waiter.error from None


async def unlock(thread: Thread, address: int, shared: bool = False) -> None:
    """FUTEX_UNLOCK_PI: hands the lock to the first sleeper, or frees it; EPERM unless the caller holds it."""
    key = futex_key(thread, address, shared)
    if thread.memory.read_u32(address) & abi.FUTEX_TID_MASK != thread.tid:
        raise EPERM("the caller does not hold the lock")
    await _hand_over(thread, thread, key, address, 0)


async def release_owned(thread: Thread) -> None:
    """Hands every lock of a thread that ends to its first sleeper, who learns of it by FUTEX_OWNER_DIED.

    There is no await between finding none left and returning.
    """
    table = thread.kernel.futexes
    while (key := next((key for key, owner in table.pi_owners.items() if owner is thread), None)) is not None:
        waiter = table.waiters[key][0]
        try:
            await _hand_over(thread, waiter.thread, key, waiter.address, abi.FUTEX_OWNER_DIED)
        except LinuxError:  # the sleeper was told: its memory is gone, and the lock with it
            continue


async def _hand_over(owner: Thread, agent: Thread, key: Key, address: int, extra_bits: int) -> None:
    """Writes the first sleeper's tid into a lock's word, or frees it. ``agent``'s processor does the writing."""
    table = agent.kernel.futexes
    heir: FutexWaiter | None = None
    try:
        while True:
            word = agent.memory.read_u32(address)
            heir = heir or table.take_first(key)
            if word & abi.FUTEX_TID_MASK != owner.tid and heir is None:
                return  # changed under us by guest code that breaks the protocol: leave it
            new = extra_bits | (heir.thread.tid | abi.FUTEX_WAITERS if heir else 0)
            if await agent.context.compare_exchange(address, word, new) == word:
                break
    except LinuxError as error:
        if heir is not None:
            heir.error = type(error)("the lock's memory is gone")
            heir.wake()
        raise
    if heir is not None:
        _note_owner(table, key, heir.thread)
        heir.is_granted = True
        heir.wake()
    else:
        _retry_all(table, key)


def _retry_all(table: FutexTable, key: Key) -> None:
    """Wakes those who queued while the lock was being freed, to try again."""
    while (waiter := table.take_first(key)) is not None:
        waiter.wake()


async def wait_requeue(thread: Thread, address: int, expected: int, deadline_ns: int | None, bitset: int,
                       lock_address: int, shared: bool) -> None:
    """FUTEX_WAIT_REQUEUE_PI: sleeps on a word, to be moved to a lock by the waker; returns as its owner."""
    if bitset == 0:
        raise EINVAL("no bit to wait for")
    key, lock_key = futex_key(thread, address, shared), futex_key(thread, lock_address, shared)
    if key == lock_key:
        raise EINVAL("a futex cannot be moved to itself")
    if thread.memory.read_u32(address) != expected:
        raise EAGAIN(f"futex at {address:#x} changed")
    table = thread.kernel.futexes
    waiter = FutexWaiter(thread, lock_address, bitset, lock_key)
    table.add(key, waiter)
    try:
        await _sleep_for_lock(waiter, deadline_ns)
    except Interrupted:
        if waiter.key == lock_key:
            raise EAGAIN("interrupted while waiting for the lock") from None
        raise
    finally:
        table.remove(waiter)
    if not waiter.is_granted:
        await lock(thread, lock_address, deadline_ns, shared)


async def requeue(thread: Thread, address: int, expected: int, lock_address: int, wake_count: int, move_count: int,
                  shared: bool) -> int:
    """FUTEX_CMP_REQUEUE_PI: gives the lock to one sleeper if it is free and moves the others to it."""
    key, lock_key = futex_key(thread, address, shared), futex_key(thread, lock_address, shared)
    if wake_count != 1 or key == lock_key:
        raise EINVAL("exactly one sleeper is woken, and moved to another futex")
    if thread.memory.read_u32(address) != expected:
        raise EAGAIN(f"futex at {address:#x} changed")
    table = thread.kernel.futexes
    moved = 0
    while moved < wake_count + move_count and (waiters := table.waiters.get(key)):
        if waiters[0].pi_key != lock_key:
            raise EINVAL("a sleeper does not expect to be moved there")
        await _move(thread, waiters[0], lock_key, lock_address)
        moved += 1
    return moved


async def _move(caller: Thread, waiter: FutexWaiter, lock_key: Key, lock_address: int) -> None:
    """Grants the lock to a sleeper or queues it there."""
    table = caller.kernel.futexes
    while True:
        table.remove(waiter)
        word = caller.memory.read_u32(lock_address)
        if word & abi.FUTEX_TID_MASK == 0:
            if await _take_free(caller, lock_address, word, waiter.thread, abi.FUTEX_WAITERS):
                waiter.key = lock_key
                waiter.is_granted = True
                _note_owner(table, lock_key, waiter.thread)
                waiter.wake()
                return
            continue
        owner = _find_owner(caller, word & abi.FUTEX_TID_MASK)
        if await _join(caller, lock_key, waiter, owner, lock_address, word) or not table.holds(waiter):
            return
