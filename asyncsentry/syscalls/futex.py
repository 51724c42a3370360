"""futex(2), its successors, and robust lists."""

from __future__ import annotations

from functools import partial

from asyncsentry.abi import futex_h as abi
from asyncsentry.abi.time_h import TIMESPEC
from asyncsentry.clock import CLOCK_MONOTONIC, CLOCK_REALTIME, NS_PER_SECOND
from asyncsentry.errnos import EINVAL, ENOSYS, ETIMEDOUT, Interrupted, TimedOut
from asyncsentry.syscalls.args import Flags, Int, Pointer, Size, UInt
from asyncsentry.syscalls.registry import Restart, syscall
from asyncsentry.tasks import futex as futexes
from asyncsentry.tasks import futex_pi
from asyncsentry.tasks.groups import find_thread
from asyncsentry.tasks.ids import check_may_attach
from asyncsentry.tasks.thread import Thread

_TIMED = frozenset((abi.FUTEX_WAIT, abi.FUTEX_WAIT_BITSET, abi.FUTEX_LOCK_PI, abi.FUTEX_LOCK_PI2,
                    abi.FUTEX_WAIT_REQUEUE_PI))  # fmt: skip
_MAY_USE_REALTIME = frozenset((abi.FUTEX_WAIT_BITSET, abi.FUTEX_WAIT_REQUEUE_PI, abi.FUTEX_LOCK_PI2))
_PI_WAITS = frozenset((abi.FUTEX_LOCK_PI, abi.FUTEX_LOCK_PI2, abi.FUTEX_WAIT_REQUEUE_PI))
_COUNT_MAX = (1 << 31) - 1


@syscall(202, errnos="EAGAIN EDEADLK EFAULT EINTR EINVAL ENOSYS EPERM ESRCH ETIMEDOUT")
async def futex(thread: Thread, address: Pointer, operation: UInt, value: UInt, timespec: Size, address2: Pointer,
                value3: UInt) -> int:
    """futex(2): the timeout first (EFAULT, EINVAL), ENOSYS for the operation, then the words."""
    command = operation & abi.FUTEX_CMD_MASK
    shared = not operation & abi.FUTEX_PRIVATE_FLAG
    if command == abi.FUTEX_WAKE:
        return futexes.wake(thread, address, _wake_count(value), shared=shared)
    deadline_ns = _read_deadline(thread, command, operation, timespec) if command in _TIMED and timespec else None
    if operation & abi.FUTEX_CLOCK_REALTIME and command not in _MAY_USE_REALTIME:
        raise ENOSYS(f"futex operation {operation:#x} knows no CLOCK_REALTIME")
    if command in (abi.FUTEX_WAIT, abi.FUTEX_WAIT_BITSET):
        bitset = value3 if command == abi.FUTEX_WAIT_BITSET else abi.FUTEX_BITSET_MATCH_ANY
        return await _wait(thread, address, value, deadline_ns, bitset, shared)
    if command in _PI_WAITS:
        return await _wait_for_lock(thread, command, address, value, deadline_ns, address2, shared)
    return await _act(thread, command, address, value, timespec, address2, value3, shared)


def _wake_count(value: int) -> int:
    """Reads a count of sleepers: Linux wakes one before it looks at a count below one."""
    return value if 1 <= value <= _COUNT_MAX else 1


def _read_deadline(thread: Thread, command: int, operation: int, address: int) -> int:
    """Reads a timeout and gives when it passes on CLOCK_MONOTONIC."""
    seconds, nanoseconds = thread.memory.read_struct(address, TIMESPEC)
    is_realtime = operation & abi.FUTEX_CLOCK_REALTIME or command == abi.FUTEX_LOCK_PI
    time_ns = _checked_ns(seconds, nanoseconds)
    if command == abi.FUTEX_WAIT:
        return thread.kernel.clock.now_ns() + time_ns
    return _monotonic(thread, time_ns) if is_realtime else time_ns


def _checked_ns(seconds: int, nanoseconds: int) -> int:
    if seconds < 0 or not 0 <= nanoseconds < NS_PER_SECOND:
        raise EINVAL("not a time")
    return seconds * NS_PER_SECOND + nanoseconds


def _monotonic(thread: Thread, realtime_ns: int) -> int:
    clock = thread.kernel.clock
    return realtime_ns - clock.now_ns(CLOCK_REALTIME) + clock.now_ns()


async def _wait(thread: Thread, address: int, value: int, deadline_ns: int | None, bitset: int, shared: bool) -> int:
    try:
        await futexes.wait(thread, address, value, deadline_ns, bitset, shared)
    except TimedOut:
        raise ETIMEDOUT("not woken in time") from None
    except Interrupted:
        if deadline_ns is None:
            raise
        thread.restart = partial(_wait, thread, address, value, deadline_ns, bitset, shared)
        return -Restart.BLOCK
    return 0


async def _wait_for_lock(thread: Thread, command: int, address: int, value: int, deadline_ns: int | None,
                         address2: int, shared: bool) -> int:
    try:
        if command == abi.FUTEX_WAIT_REQUEUE_PI:
            await futex_pi.wait_requeue(thread, address, value, deadline_ns, abi.FUTEX_BITSET_MATCH_ANY, address2,
                                        shared)
        else:
            await futex_pi.lock(thread, address, deadline_ns, shared)
    except TimedOut:
        raise ETIMEDOUT("the lock was not free in time") from None
    except Interrupted:
        return -Restart.NOINTR
    return 0


async def _act(thread: Thread, command: int, address: int, value: int, value2: int, address2: int, value3: int,
               shared: bool) -> int:
    """Does the operations that do not sleep."""
    if command == abi.FUTEX_WAKE_BITSET:
        return futexes.wake(thread, address, _wake_count(value), value3, shared)
    if command == abi.FUTEX_WAKE_OP:
        return await futexes.wake_op(thread, address, _wake_count(value), address2, _wake_count(value2 & 0xFFFFFFFF),
                                     value3, shared)
    if command == abi.FUTEX_TRYLOCK_PI:
        await futex_pi.lock(thread, address, None, shared, only_try=True)
        return 0
    if command == abi.FUTEX_UNLOCK_PI:
        await futex_pi.unlock(thread, address, shared)
        return 0
    if command not in (abi.FUTEX_REQUEUE, abi.FUTEX_CMP_REQUEUE, abi.FUTEX_CMP_REQUEUE_PI):
        raise ENOSYS(f"no futex operation {command}")
    value2 &= 0xFFFFFFFF
    if value > _COUNT_MAX or value2 > _COUNT_MAX:
        raise EINVAL("negative count")
    if command == abi.FUTEX_CMP_REQUEUE_PI:
        return await futex_pi.requeue(thread, address, value3, address2, value, value2, shared)
    expected = value3 if command == abi.FUTEX_CMP_REQUEUE else None
    return futexes.requeue(thread, address, value, address2, value2, expected, shared, shared)


@syscall(449, errnos="EAGAIN EFAULT EINVAL ETIMEDOUT")
async def futex_waitv(thread: Thread, waiters: Pointer, count: UInt, flags: Flags, timespec: Pointer,
                      clock_id: Int) -> int:
    """futex_waitv(2): EINVAL for flags and count, the timeout, the vector, then EAGAIN."""
    if flags or not 1 <= count <= abi.FUTEX_WAITV_MAX or not waiters:
        raise EINVAL("unknown flags or not a vector")
    deadline_ns = _read_absolute(thread, timespec, clock_id) if timespec else None
    data = thread.memory.read(waiters, count * abi.FUTEX_WAITV.size)
    specs = [_wait_spec(*row) for row in abi.FUTEX_WAITV.iter_unpack(data)]
    try:
        return await futexes.wait_any(thread, specs, deadline_ns)
    except TimedOut:
        raise ETIMEDOUT("none was woken in time") from None


def _wait_spec(value: int, address: int, flags: int, reserved: int) -> futexes.WaitSpec:
    if reserved or not _is_futex2(flags) or value >> 32:
        raise EINVAL("unknown flags or not a 32-bit value")
    return futexes.WaitSpec(address, value, not flags & abi.FUTEX2_PRIVATE)


def _is_futex2(flags: int) -> bool:
    """Whether flags of the newer calls name a kind of futex there is: 32 bits wide, private or shared."""
    return flags & ~(abi.FUTEX2_SIZE_MASK | abi.FUTEX2_PRIVATE) == 0 and (
        flags & abi.FUTEX2_SIZE_MASK == abi.FUTEX2_SIZE_U32)


def _read_absolute(thread: Thread, address: int, clock_id: int) -> int:
    if clock_id not in (CLOCK_MONOTONIC, CLOCK_REALTIME):
        raise EINVAL(f"no timeouts on clock {clock_id}")
    time_ns = _checked_ns(*thread.memory.read_struct(address, TIMESPEC))
    return _monotonic(thread, time_ns) if clock_id == CLOCK_REALTIME else time_ns


@syscall(454, errnos="EFAULT EINVAL")
def futex_wake(thread: Thread, address: Pointer, mask: Size, count: Int, flags: Flags) -> int:
    """futex_wake(2)."""
    if not _is_futex2(flags) or mask >> 32:
        raise EINVAL("unknown flags or not a 32-bit mask")
    if count == 0:
        return 0
    return futexes.wake(thread, address, _wake_count(count), mask, not flags & abi.FUTEX2_PRIVATE)


@syscall(455, errnos="EAGAIN EFAULT EINVAL ETIMEDOUT")
async def futex_wait(thread: Thread, address: Pointer, value: Size, mask: Size, flags: Flags, timespec: Pointer,
                     clock_id: Int) -> int:
    """futex_wait(2)."""
    if not _is_futex2(flags) or value >> 32 or mask >> 32:
        raise EINVAL("unknown flags or not 32-bit values")
    deadline_ns = _read_absolute(thread, timespec, clock_id) if timespec else None
    return await _wait(thread, address, value, deadline_ns, mask, not flags & abi.FUTEX2_PRIVATE)


@syscall(456, errnos="EAGAIN EFAULT EINVAL")
def futex_requeue(thread: Thread, waiters: Pointer, flags: Flags, wake_count: Int, move_count: Int) -> int:
    """futex_requeue(2)."""
    if flags or not waiters:
        raise EINVAL("unknown flags or no vector")
    data = thread.memory.read(waiters, 2 * abi.FUTEX_WAITV.size)
    source, target = (_wait_spec(*row) for row in abi.FUTEX_WAITV.iter_unpack(data))
    if wake_count < 0 or move_count < 0:
        raise EINVAL("negative count")
    return futexes.requeue(thread, source.address, wake_count, target.address, move_count, source.expected,
                           source.shared, target.shared)


@syscall(273, errnos="EINVAL")
def set_robust_list(thread: Thread, head: Pointer, size: Size) -> int:
    """set_robust_list(2)."""
    if size != abi.ROBUST_LIST_HEAD.size:
        raise EINVAL(f"the head is {abi.ROBUST_LIST_HEAD.size} bytes long")
    thread.robust_list = (head, size)
    return 0


@syscall(274, errnos="EFAULT EPERM ESRCH")
def get_robust_list(thread: Thread, tid: Int, head: Pointer, size: Pointer) -> int:
    """get_robust_list(2): ESRCH, EPERM, EFAULT."""
    other = find_thread(thread, tid)
    check_may_attach(thread, other.process)
    thread.memory.write_u64(size, abi.ROBUST_LIST_HEAD.size)
    thread.memory.write_u64(head, other.robust_list[0])
    return 0
