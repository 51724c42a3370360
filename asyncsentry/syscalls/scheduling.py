"""Scheduling: the host does it, so most of what guests ask for is checked, kept and told back. See sched(7).

The checks and the inheritance are Linux's; what is missing is the effect.
"""

from __future__ import annotations

from collections.abc import Iterable

from asyncsentry.abi import resource_h, sched_h
from asyncsentry.abi.resource_h import IOPRIO_CLASS_SHIFT
from asyncsentry.abi.time_h import TIMESPEC
from asyncsentry.errnos import E2BIG, EACCES, EINVAL, EPERM, ESRCH
from asyncsentry.platforms.base import PAGE_SIZE
from asyncsentry.syscalls.args import Flags, Int, Pointer, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.credentials import CAP_SYS_ADMIN, CAP_SYS_NICE
from asyncsentry.tasks.groups import find_thread
from asyncsentry.tasks.thread import Thread

_IO_LEVEL_USUAL = 4
_STORED = "kept and told back, but the host schedules"
_REALTIME = (sched_h.SCHED_FIFO, sched_h.SCHED_RR)
_FAIR = (sched_h.SCHED_NORMAL, sched_h.SCHED_BATCH, sched_h.SCHED_IDLE)
_RR_INTERVAL_NS, _FAIR_INTERVAL_NS = 100_000_000, 3_000_000
_MASK_BYTES_MAX = 1024
_PRIORITY_MAX = 99


# Affinity and yielding ------------------------------------------------------------------------------


@syscall(24)
async def sched_yield(thread: Thread) -> int:
    """sched_yield(2)."""
    await thread.yield_now()
    return 0


@syscall(203, errnos="EFAULT EINVAL EPERM ESRCH", missing=_STORED)
def sched_setaffinity(thread: Thread, tid: Int, size: UInt, mask: Pointer) -> int:
    """sched_setaffinity(2): EFAULT, ESRCH, EPERM, EINVAL for a mask without any processor there is."""
    bits = int.from_bytes(thread.memory.read(mask, min(size, _MASK_BYTES_MAX)), "little")
    target = find_thread(thread, tid)
    _check_owner(thread, target)
    cpus = frozenset(cpu for cpu in _all_cpus(thread) if bits >> cpu & 1)
    if not cpus:
        raise EINVAL("no such processors")
    target.scheduling.affinity = cpus
    return 0


@syscall(204, errnos="EFAULT EINVAL ESRCH")
def sched_getaffinity(thread: Thread, tid: Int, size: UInt, mask: Pointer) -> int:
    """sched_getaffinity(2): EINVAL for a size that is too small or not in longs, ESRCH, EFAULT."""
    cpus = _all_cpus(thread)
    if size * 8 < len(cpus) or size & 7:
        raise EINVAL("not the size of a mask")
    wanted = find_thread(thread, tid).scheduling.affinity
    bits = sum(1 << cpu for cpu in (wanted if wanted is not None else cpus))
    length = min(size, (len(cpus) + 63) // 64 * 8)
    thread.memory.write(mask, bits.to_bytes(length, "little"))
    return length


def _all_cpus(thread: Thread) -> range:
    return range(thread.kernel.host_facts.cpu_count)


# Policies -------------------------------------------------------------------------------------------


@syscall(144, errnos="EFAULT EINVAL EPERM ESRCH", missing=_STORED)
def sched_setscheduler(thread: Thread, tid: Int, policy: Int, param: Pointer) -> int:
    """sched_setscheduler(2): EINVAL, EFAULT, ESRCH, EINVAL, EPERM."""
    if policy < 0:
        raise EINVAL("not a policy")
    target, priority = _target_and_priority(thread, tid, param)
    _set_policy(thread, target, policy & ~sched_h.SCHED_RESET_ON_FORK, priority,
                bool(policy & sched_h.SCHED_RESET_ON_FORK))
    return 0


@syscall(142, errnos="EFAULT EINVAL EPERM ESRCH", missing=_STORED)
def sched_setparam(thread: Thread, tid: Int, param: Pointer) -> int:
    """sched_setparam(2)."""
    target, priority = _target_and_priority(thread, tid, param)
    _set_policy(thread, target, target.scheduling.policy, priority, target.scheduling.reset_on_fork)
    return 0


def _target_and_priority(thread: Thread, tid: int, param: int) -> tuple[Thread, int]:
    if tid < 0 or not param:
        raise EINVAL("not a thread, or no parameters")
    priority = thread.memory.read_i32(param)
    return find_thread(thread, tid), priority


def _set_policy(caller: Thread, target: Thread, policy: int, priority: int, reset_on_fork: bool) -> None:
    if policy not in _REALTIME + _FAIR:
        raise EINVAL(f"no policy {policy}")
    if (policy in _REALTIME and not 1 <= priority <= _PRIORITY_MAX) or (policy in _FAIR and priority):
        raise EINVAL(f"priority {priority} does not go with policy {policy}")
    scheduling = target.scheduling
    if not caller.credentials.has(CAP_SYS_NICE):
        _check_policy_change(caller, target, policy, priority, reset_on_fork)
    scheduling.policy, scheduling.priority, scheduling.reset_on_fork = policy, priority, reset_on_fork


def _check_policy_change(caller: Thread, target: Thread, policy: int, priority: int, reset_on_fork: bool) -> None:
    """EPERM as Linux's user_check_sched_setscheduler() without CAP_SYS_NICE."""
    scheduling = target.scheduling
    if policy in _REALTIME:
        limit = target.process.limits.soft(resource_h.RLIMIT_RTPRIO)
        if (policy != scheduling.policy and not limit) or (priority > scheduling.priority and priority > limit):
            raise EPERM("a real-time priority beyond RLIMIT_RTPRIO")
    _check_owner(caller, target)
    if scheduling.reset_on_fork and not reset_on_fork:
        raise EPERM("children must stay ordinary")


@syscall(145, errnos="EINVAL ESRCH")
def sched_getscheduler(thread: Thread, tid: Int) -> int:
    """sched_getscheduler(2)."""
    if tid < 0:
        raise EINVAL("not a thread")
    scheduling = find_thread(thread, tid).scheduling
    return scheduling.policy | (sched_h.SCHED_RESET_ON_FORK if scheduling.reset_on_fork else 0)


@syscall(143, errnos="EFAULT EINVAL ESRCH")
def sched_getparam(thread: Thread, tid: Int, param: Pointer) -> int:
    """sched_getparam(2)."""
    if tid < 0 or not param:
        raise EINVAL("not a thread, or no place for parameters")
    thread.memory.write_i32(param, find_thread(thread, tid).scheduling.priority)
    return 0


@syscall(146, errnos="EINVAL")
def sched_get_priority_max(thread: Thread, policy: Int) -> int:
    """sched_get_priority_max(2)."""
    return _priority_bound(policy, _PRIORITY_MAX)


@syscall(147, errnos="EINVAL")
def sched_get_priority_min(thread: Thread, policy: Int) -> int:
    """sched_get_priority_min(2)."""
    return _priority_bound(policy, 1)


def _priority_bound(policy: int, realtime: int) -> int:
    if policy in _REALTIME:
        return realtime
    if policy in (*_FAIR, sched_h.SCHED_DEADLINE):
        return 0
    raise EINVAL(f"no policy {policy}")


@syscall(148, errnos="EFAULT EINVAL ESRCH")
def sched_rr_get_interval(thread: Thread, tid: Int, interval: Pointer) -> int:
    """sched_rr_get_interval(2)."""
    if tid < 0:
        raise EINVAL("not a thread")
    policy = find_thread(thread, tid).scheduling.policy
    nanoseconds = {sched_h.SCHED_RR: _RR_INTERVAL_NS, sched_h.SCHED_FIFO: 0}.get(policy, _FAIR_INTERVAL_NS)
    thread.memory.write_struct(interval, TIMESPEC, 0, nanoseconds)
    return 0


@syscall(314, errnos="E2BIG EFAULT EINVAL EPERM ESRCH", missing=_STORED + "; no SCHED_DEADLINE")
def sched_setattr(thread: Thread, tid: Int, attributes: Pointer, flags: Flags) -> int:
    """sched_setattr(2): EINVAL, E2BIG (the size we know is written back), EFAULT, ESRCH, EINVAL, EPERM."""
    if not attributes or tid < 0 or flags:
        raise EINVAL("no attributes, not a thread, or unknown flags")
    known = sched_h.SCHED_ATTR.size
    size = thread.memory.read_u32(attributes) or sched_h.SCHED_ATTR_SIZE_VER0
    data = thread.memory.read(attributes, min(size, PAGE_SIZE))
    if not sched_h.SCHED_ATTR_SIZE_VER0 <= size <= PAGE_SIZE or any(data[known:]):
        thread.memory.write_u32(attributes, known)
        raise E2BIG("not a size, or unknown fields are set")
    _, policy, attribute_flags, nice, priority, *_ = sched_h.SCHED_ATTR.unpack(data[:known])
    target = find_thread(thread, tid)
    known_flags = (sched_h.SCHED_FLAG_RESET_ON_FORK | sched_h.SCHED_FLAG_KEEP_POLICY | sched_h.SCHED_FLAG_KEEP_PARAMS)
    if attribute_flags & ~known_flags:
        raise EINVAL("unknown attribute flags")
    _apply_attributes(thread, target, policy, attribute_flags, nice, priority)
    return 0


def _apply_attributes(thread: Thread, target: Thread, policy: int, flags: int, nice: int, priority: int) -> None:
    scheduling = target.scheduling
    if flags & sched_h.SCHED_FLAG_KEEP_POLICY:
        policy = scheduling.policy
    if flags & sched_h.SCHED_FLAG_KEEP_PARAMS:
        priority, nice = scheduling.priority, scheduling.nice
    nice = _clamped(nice)
    if policy in _FAIR and nice < scheduling.nice:
        _check_nice(thread, target, nice)
    _set_policy(thread, target, policy, priority, bool(flags & sched_h.SCHED_FLAG_RESET_ON_FORK))
    if policy in _FAIR:
        scheduling.nice = nice


@syscall(315, errnos="EFAULT EINVAL ESRCH")
def sched_getattr(thread: Thread, tid: Int, attributes: Pointer, size: UInt, flags: Flags) -> int:
    """sched_getattr(2)."""
    if not attributes or tid < 0 or flags or not sched_h.SCHED_ATTR_SIZE_VER0 <= size <= PAGE_SIZE:
        raise EINVAL("no place for attributes, not a thread, or not a size")
    scheduling = find_thread(thread, tid).scheduling
    flags = Flags(sched_h.SCHED_FLAG_RESET_ON_FORK if scheduling.reset_on_fork else 0)
    thread.memory.write_struct(
        attributes, sched_h.SCHED_ATTR, sched_h.SCHED_ATTR_SIZE_VER0, scheduling.policy, flags,
        scheduling.nice if scheduling.policy in _FAIR else 0, scheduling.priority, 0, 0, 0)  # fmt: skip
    return 0


# Niceness and I/O priority --------------------------------------------------------------------------


@syscall(140, errnos="EINVAL ESRCH")
def getpriority(thread: Thread, which: Int, who: Int) -> int:
    """getpriority(2): 20 less the niceness, as the system call has it; the best of several."""
    return max(20 - target.scheduling.nice for target in _select(thread, which, who, resource_h.PRIO_PROCESS))


@syscall(141, errnos="EACCES EINVAL EPERM ESRCH", missing=_STORED)
def setpriority(thread: Thread, which: Int, who: Int, nice: Int) -> int:
    """setpriority(2): EINVAL, ESRCH, EPERM, EACCES."""
    value = _clamped(nice)
    targets = _select(thread, which, who, resource_h.PRIO_PROCESS)
    for target in targets:
        _check_owner(thread, target)
        if value < target.scheduling.nice:
            _check_nice(thread, target, value, EACCES)
    for target in targets:
        target.scheduling.nice = value
    return 0


@syscall(252, errnos="EINVAL ESRCH")
def ioprio_get(thread: Thread, which: Int, who: Int) -> int:
    """ioprio_get(2): the best of several."""
    targets = _select(thread, which, who, resource_h.IOPRIO_WHO_PROCESS)
    return min((target.scheduling.io_priority for target in targets), key=_io_rank)


@syscall(251, errnos="EINVAL EPERM ESRCH", missing=_STORED)
def ioprio_set(thread: Thread, which: Int, who: Int, priority: Int) -> int:
    """ioprio_set(2): EPERM or EINVAL for the class, EINVAL, ESRCH, EPERM."""
    kind, level = priority >> IOPRIO_CLASS_SHIFT & 7, priority & 7
    credentials = thread.credentials
    if kind == resource_h.IOPRIO_CLASS_RT and not (credentials.has(CAP_SYS_NICE) or credentials.has(CAP_SYS_ADMIN)):
        raise EPERM("real-time input and output is for administrators")
    if kind > resource_h.IOPRIO_CLASS_IDLE or (kind == resource_h.IOPRIO_CLASS_NONE and level):
        raise EINVAL(f"no class {kind}, or no levels in it")
    targets = _select(thread, which, who, resource_h.IOPRIO_WHO_PROCESS)
    for target in targets:
        _check_owner(thread, target)
    for target in targets:
        target.scheduling.io_priority = priority & 0xFFFF
    return 0


def _io_rank(priority: int) -> tuple[int, int]:
    """Orders priorities, the best first; none ranks in the middle, Linux's ``ioprio_best``."""
    if not priority >> IOPRIO_CLASS_SHIFT:
        priority = resource_h.IOPRIO_CLASS_BE << IOPRIO_CLASS_SHIFT | _IO_LEVEL_USUAL
    return priority >> IOPRIO_CLASS_SHIFT, priority & (1 << IOPRIO_CLASS_SHIFT) - 1


def _select(thread: Thread, which: int, who: int, first_kind: int) -> list[Thread]:
    """Gives the threads of one, a process group's or a user's; EINVAL for another kind, ESRCH for none."""
    kind = which - first_kind
    if kind == 0:
        return [find_thread(thread, who)]
    if kind == 1:
        pgid = who or thread.process.group.pgid
        return _some(t for t in thread.kernel.threads.values() if t.process.group.pgid == pgid)
    if kind == 2:
        uid = who & 0xFFFFFFFF or thread.credentials.ruid
        return _some(t for t in thread.kernel.threads.values() if t.credentials.ruid == uid)
    raise EINVAL(f"no kind {which}")


def _some(threads: Iterable[Thread]) -> list[Thread]:
    found = list(threads)
    if not found:
        raise ESRCH("nobody is meant")
    return found


def _check_owner(caller: Thread, target: Thread) -> None:
    if caller.credentials.euid not in (target.credentials.ruid, target.credentials.euid) and (
            not caller.credentials.has(CAP_SYS_NICE)):
        raise EPERM(f"thread {target.tid} is another user's")


def _check_nice(caller: Thread, target: Thread, nice: int, error: type[EACCES] | type[EPERM] = EPERM) -> None:
    if not caller.credentials.has(CAP_SYS_NICE) and 20 - nice > target.process.limits.soft(resource_h.RLIMIT_NICE):
        raise error("less nice than RLIMIT_NICE allows")


def _clamped(nice: int) -> int:
    return max(resource_h.PRIO_MIN, min(resource_h.PRIO_MAX, nice))
