"""Futexes: threads that sleep on a word of guest memory. See futex(2), futex(7), linux/kernel/futex.

A word is compared with no await between reading it and joining its queue, so a wake that follows a
change of the word always finds the sleeper. Changes this kernel makes to a word go through the
processor's own compare-and-exchange, as guest threads may run meanwhile. Priority inheritance is in ``futex_pi.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from asyncsentry.abi import futex_h as abi
from asyncsentry.errnos import EAGAIN, EFAULT, EINVAL, ENOSYS, Interrupted, LinuxError, TimedOut
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX
from asyncsentry.waiter import POLLIN, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

Key = tuple[object, int]
"""What makes two futexes the same: an address space and address, or a shared object and offset in it."""


class FutexWaiter:
    """One thread's sleep on one futex."""

    __slots__ = ("address", "bitset", "error", "is_granted", "is_woken", "key", "pi_key", "queue", "thread")

    def __init__(self, thread: Thread, address: int, bitset: int = abi.FUTEX_BITSET_MATCH_ANY,
                 pi_key: Key | None = None) -> None:
        self.thread = thread
        self.address = address
        """Where the futex lies in the sleeper's own memory."""
        self.bitset = bitset
        self.key: Key = (None, 0)
        self.queue = WaitQueue()
        self.is_woken = False
        self.is_granted = False
        """Whether the word now names the sleeper as the owner of a PI lock."""
        self.pi_key = pi_key
        """Where FUTEX_WAIT_REQUEUE_PI expects to be moved; ``None`` for other waits."""
        self.error: LinuxError | None = None
        """Raised in the sleeper instead of a normal return."""

    def wake(self) -> None:
        """Ends the sleep."""
        self.is_woken = True
        self.queue.notify(POLLIN)


class FutexTable:
    """All sleepers of a sandbox, by futex and in order of arrival."""

    def __init__(self) -> None:
        self.waiters: dict[Key, list[FutexWaiter]] = {}
        self.pi_owners: dict[Key, Thread] = {}
        """Who holds each PI futex that has sleepers, ``futex_pi.py``."""

    def add(self, key: Key, waiter: FutexWaiter) -> None:
        """Puts a sleeper at the end of a futex's queue."""
        waiter.key = key
        self.waiters.setdefault(key, []).append(waiter)

    def remove(self, waiter: FutexWaiter) -> None:
        """Takes a sleeper off its queue; one that has left it already is no error."""
        waiters = self.waiters.get(waiter.key)
        if waiters and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self.waiters[waiter.key]
                self.pi_owners.pop(waiter.key, None)

    def holds(self, waiter: FutexWaiter) -> bool:
        """Whether a sleeper is still on its queue."""
        return waiter in self.waiters.get(waiter.key, ())

    def take_first(self, key: Key) -> FutexWaiter | None:
        """Takes the first sleeper off a futex's queue, if there is one."""
        waiters = self.waiters.get(key)
        if not waiters:
            return None
        first = waiters[0]
        self.remove(first)
        return first

    def wake(self, key: Key, count: int, bitset: int = abi.FUTEX_BITSET_MATCH_ANY) -> int:
        """Wakes up to ``count`` sleepers that share a bit with ``bitset``; gives how many.

        EINVAL if one of them waits for a PI lock, which only unlocking may end.
        """
        waiters = self.waiters.get(key)
        if waiters is None:
            return 0
        if key in self.pi_owners or any(waiter.pi_key is not None for waiter in waiters):
            raise EINVAL("a PI futex is not woken, it is unlocked")
        woken = [waiter for waiter in waiters if waiter.bitset & bitset][: max(count, 0)]
        for waiter in woken:
            self.remove(waiter)
            waiter.wake()
        return len(woken)

    def requeue(self, key: Key, target: Key, wake_count: int, move_count: int) -> int:
        """Wakes some sleepers and moves others to a second futex; gives how many of both together."""
        affected = self.wake(key, wake_count)
        for waiter in self.waiters.get(key, [])[:move_count]:
            self.remove(waiter)
            self.add(target, waiter)
            affected += 1
        return affected


def futex_key(thread: Thread, address: int, shared: bool) -> Key:
    """Gives a futex's identity; EINVAL unless aligned. In private memory "shared" makes no difference."""
    if address & 3:
        raise EINVAL(f"futex at {address:#x} is not aligned")
    if address >= GUEST_ADDRESS_MAX:
        raise EFAULT(f"no memory at {address:#x}")
    if shared and (key := thread.memory.shared_key(address)) is not None:
        return key
    return thread.memory, address


async def wait(thread: Thread, address: int, expected: int, deadline_ns: int | None = None,
               bitset: int = abi.FUTEX_BITSET_MATCH_ANY, shared: bool = False) -> None:
    """FUTEX_WAIT: sleeps until woken while the word is ``expected``.

    EAGAIN if it is not; raises Interrupted or TimedOut.
    """
    if bitset == 0:
        raise EINVAL("no bit to wait for")
    key = futex_key(thread, address, shared)
    table = thread.kernel.futexes
    if thread.memory.read_u32(address) != expected:
        raise EAGAIN(f"futex at {address:#x} changed")
    waiter = FutexWaiter(thread, address, bitset)
    table.add(key, waiter)
    try:
        await sleep(waiter, deadline_ns)
    finally:
        table.remove(waiter)


async def sleep(waiter: FutexWaiter, deadline_ns: int | None) -> None:
    """Waits for a queued sleeper to be woken. A wake that came together with another end counts."""
    try:
        while not waiter.is_woken:
            await waiter.thread.block(waiter.queue, POLLIN, deadline_ns)
    except (Interrupted, TimedOut):
        if not waiter.is_woken:
            raise
    if waiter.error is not None:
        raise waiter.error


def wake(thread: Thread, address: int, count: int, bitset: int = abi.FUTEX_BITSET_MATCH_ANY,
         shared: bool = False) -> int:
    """FUTEX_WAKE: wakes up to ``count`` sleepers and gives how many."""
    if bitset == 0:
        raise EINVAL("no bit to wake")
    return thread.kernel.futexes.wake(futex_key(thread, address, shared), count, bitset)


def requeue(thread: Thread, address: int, wake_count: int, target: int, move_count: int, expected: int | None,
            shared: bool, target_shared: bool) -> int:
    """FUTEX_REQUEUE and, with ``expected``, FUTEX_CMP_REQUEUE: wakes some sleepers and moves others."""
    key, target_key = futex_key(thread, address, shared), futex_key(thread, target, target_shared)
    if expected is not None and thread.memory.read_u32(address) != expected:
        raise EAGAIN(f"futex at {address:#x} changed")
    return thread.kernel.futexes.requeue(key, target_key, wake_count, move_count)


class WaitSpec(NamedTuple):
    """One futex of futex_waitv(2)."""

    address: int
    expected: int
    shared: bool


async def wait_any(thread: Thread, specs: Sequence[WaitSpec], deadline_ns: int | None) -> int:
    """Sleeps on several futexes until one is woken and gives its index, futex_waitv(2)."""
    table = thread.kernel.futexes
    keys = [futex_key(thread, spec.address, spec.shared) for spec in specs]
    waiters: list[FutexWaiter] = []
    try:
        for spec, key in zip(specs, keys, strict=True):
            if thread.memory.read_u32(spec.address) != spec.expected:
                raise EAGAIN(f"futex at {spec.address:#x} changed")
            waiters.append(waiter := FutexWaiter(thread, spec.address))
            table.add(key, waiter)
        while (woken := _woken_index(waiters)) is None:
            try:
                await thread.block_any([(waiter.queue, POLLIN) for waiter in waiters], deadline_ns)
            except (Interrupted, TimedOut):
                if _woken_index(waiters) is None:
                    raise
        return woken
    finally:
        for waiter in waiters:
            table.remove(waiter)


def _woken_index(waiters: list[FutexWaiter]) -> int | None:
    return next((index for index, waiter in enumerate(waiters) if waiter.is_woken), None)


async def wake_op(thread: Thread, address: int, wake_count: int, address2: int, wake_count2: int, operation: int,
                  shared: bool) -> int:
    """FUTEX_WAKE_OP: changes the second word, wakes on the first, and on the second if its old value passes a test."""
    key, key2 = futex_key(thread, address, shared), futex_key(thread, address2, shared)
    kind, comparison = operation >> 28 & 7, operation >> 24 & 15
    operand, compared = _signed12(operation >> 12), _signed12(operation)
    if operation >> 28 & abi.FUTEX_OP_OPARG_SHIFT:
        operand = 1 << (operand & 31)
    old = await _modify(thread, address2, kind, operand)
    table = thread.kernel.futexes
    woken = table.wake(key, wake_count)
    if _compare(old, comparison, compared):
        woken += table.wake(key2, wake_count2)
    return woken


def _signed12(field: int) -> int:
    return (field & 0xFFF ^ 0x800) - 0x800


async def _modify(thread: Thread, address: int, kind: int, operand: int) -> int:
    """Does FUTEX_OP_* on a word and gives what it was."""
    if kind > abi.FUTEX_OP_XOR:
        raise ENOSYS(f"futex operation {kind}")
    while True:
        old = thread.memory.read_u32(address)
        new = (operand, old + operand, old | operand, old & ~operand, old ^ operand)[kind] & 0xFFFFFFFF
        if await thread.context.compare_exchange(address, old, new) == old:
            return old


def _compare(old: int, comparison: int, value: int) -> bool:
    signed = (old ^ 0x80000000) - 0x80000000
    if comparison > abi.FUTEX_OP_CMP_GE:
        raise ENOSYS(f"futex comparison {comparison}")
    return (signed == value, signed != value, signed < value, signed <= value, signed > value,
            signed >= value)[comparison]  # fmt: skip
