"""madvise(2), msync(2), mincore(2), mlock(2) and kin: what does not change where things are mapped.

Advice that changes what memory holds, or who inherits it, goes to the host; advice about speed alone is
checked and passed on where the host has a use for it. Locked memory is only accounted for: the host's pages
are the host's to swap.
"""

from __future__ import annotations

from asyncsentry.abi import mman_h as abi
from asyncsentry.abi.resource_h import RLIMIT_MEMLOCK
from asyncsentry.errnos import EACCES, EBUSY, EINVAL, ENOMEM, EPERM
from asyncsentry.memory.layout import page_up
from asyncsentry.memory.manager import LimitSource, MemoryManager
from asyncsentry.memory.vma import (
    VM_DONTDUMP,
    VM_DONTFORK,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_PLATFORM,
    VM_WIPEONFORK,
    Vma,
)
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX, PAGE_SIZE, Context, HostCall

_LOCK_BITS = VM_LOCKED | VM_LOCKONFAULT
_FLAG_CHANGES = {
    abi.MADV_DONTFORK: (VM_DONTFORK, 0), abi.MADV_DOFORK: (0, VM_DONTFORK),
    abi.MADV_WIPEONFORK: (VM_WIPEONFORK, 0), abi.MADV_KEEPONFORK: (0, VM_WIPEONFORK),
    abi.MADV_DONTDUMP: (VM_DONTDUMP, 0), abi.MADV_DODUMP: (0, VM_DONTDUMP),
}  # fmt: skip
"""Bits set and cleared by advice that lasts."""
_UNLOCKED_ONLY = (abi.MADV_DONTNEED, abi.MADV_FREE, abi.MADV_REMOVE, abi.MADV_COLD, abi.MADV_PAGEOUT)
_PASSED_ON = frozenset((
    abi.MADV_NORMAL, abi.MADV_RANDOM, abi.MADV_SEQUENTIAL, abi.MADV_DONTNEED, abi.MADV_FREE,
    abi.MADV_REMOVE, abi.MADV_DONTFORK, abi.MADV_DOFORK, abi.MADV_HUGEPAGE, abi.MADV_NOHUGEPAGE,
    abi.MADV_WIPEONFORK, abi.MADV_KEEPONFORK, abi.MADV_COLD, abi.MADV_PAGEOUT, abi.MADV_POPULATE_READ,
    abi.MADV_POPULATE_WRITE, abi.MADV_DONTNEED_LOCKED, abi.MADV_COLLAPSE,
))  # fmt: skip
_TAKEN_NOTE_OF = frozenset((
    abi.MADV_WILLNEED, abi.MADV_MERGEABLE, abi.MADV_UNMERGEABLE, abi.MADV_DONTDUMP, abi.MADV_DODUMP,
))  # fmt: skip
_NEEDS_ANSWER = frozenset((abi.MADV_POPULATE_READ, abi.MADV_POPULATE_WRITE, abi.MADV_REMOVE, abi.MADV_COLLAPSE))
_CALLS_AT_ONCE = 24


class _FlagChange:
    """Sets and clears bits of areas."""

    __slots__ = ("_clear", "_set")

    def __init__(self, set_bits: int, clear_bits: int) -> None:
        self._set = set_bits
        self._clear = clear_bits

    def __call__(self, vma: Vma) -> Vma:
        return vma.changed(flags=vma.flags & ~self._clear | self._set)


async def madvise(memory: MemoryManager, context: Context, address: int, length: int, advice: int) -> None:
    """Takes advice on a range. Holes give ENOMEM, after what is mapped has been advised."""
    if advice in (abi.MADV_HWPOISON, abi.MADV_SOFT_OFFLINE):
        raise EPERM("no memory is broken here")
    if advice not in _PASSED_ON and advice not in _TAKEN_NOTE_OF:
        raise EINVAL(f"no advice {advice}")
    end = address + page_up(length)
    if address & (PAGE_SIZE - 1) or end > 1 << 64:
        raise EINVAL("not a range of pages")
    if not length:
        return
    end = min(end, GUEST_ADDRESS_MAX)
    areas = memory.vmas.overlapping(address, end)
    for vma in areas:
        _check_advice(vma, advice)
    async with memory.changing(context):
        if advice in _FLAG_CHANGES:
            memory.vmas.change(address, end, _FlagChange(*_FLAG_CHANGES[advice]))
        if advice in _PASSED_ON:
            # One call per area: a hole must not keep the host from what lies behind it.
            runs = _runs(areas, address, end)
            for index, (low, high) in enumerate(runs, 1):
                context.queue_host_call(HostCall(abi.SYS_MADVISE, (low, high - low, advice)))
                if advice in _NEEDS_ANSWER or index % _CALLS_AT_ONCE == 0:
                    await memory.flush(context)
    if not memory.vmas.covers(address, address + page_up(length)):
        raise ENOMEM("there is a hole in the range")


def _check_advice(vma: Vma, advice: int) -> None:
    shared = bool(vma.flags & abi.MAP_SHARED)
    if vma.flags & VM_PLATFORM and advice not in (abi.MADV_NORMAL, abi.MADV_RANDOM, abi.MADV_SEQUENTIAL):
        raise EINVAL("not of the vdso")
    if vma.flags & VM_LOCKED and advice in _UNLOCKED_ONLY:
        raise EINVAL("the memory is locked")
    if advice in (abi.MADV_FREE, abi.MADV_WIPEONFORK) and (shared or vma.file is not None):
        raise EINVAL("only of private anonymous memory")
    if advice == abi.MADV_REMOVE:
        if vma.file is None:
            raise EINVAL("only memory with something behind it can be removed")
        if not shared or not vma.may & abi.PROT_WRITE:
            raise EACCES("not shared and writable")


def _runs(areas: list[Vma], start: int, end: int) -> list[tuple[int, int]]:
    """Gives the mapped parts of a range, neighbours as one."""
    runs: list[tuple[int, int]] = []
    for vma in areas:
        low, high = max(start, vma.start), min(end, vma.end)
        if runs and runs[-1][1] == low:
            runs[-1] = (runs[-1][0], high)
        else:
            runs.append((low, high))
    return runs


async def msync(memory: MemoryManager, context: Context, address: int, length: int, flags: int) -> None:
    """Writes shared file mappings through."""
    if flags & ~(abi.MS_ASYNC | abi.MS_INVALIDATE | abi.MS_SYNC) or address & (PAGE_SIZE - 1):
        raise EINVAL("unknown flags, or not a page")
    if flags & abi.MS_ASYNC and flags & abi.MS_SYNC:
        raise EINVAL("both at once and later")
    end = address + page_up(length)
    if end > 1 << 64:
        raise ENOMEM("the range wraps")
    if flags & abi.MS_INVALIDATE and any(vma.flags & VM_LOCKED for vma in memory.vmas.overlapping(address, end)):
        raise EBUSY("the memory is locked")
    if flags & abi.MS_SYNC:
        files = [vma for vma in memory.vmas.overlapping(address, end) if vma.flags & abi.MAP_SHARED]
        for low, high in _runs(files, address, end):
            context.queue_host_call(HostCall(abi.SYS_MSYNC, (low, high - low, abi.MS_SYNC)))
            await memory.flush(context)
    if not memory.vmas.covers(address, end):
        raise ENOMEM("there is a hole in the range")


def mincore(memory: MemoryManager, address: int, length: int) -> bytes:
    """Gives one byte per page; every mapped page counts as resident, as it can be any moment."""
    if address & (PAGE_SIZE - 1):
        raise EINVAL("not a page")
    end = address + page_up(length)
    if end > GUEST_ADDRESS_MAX or not memory.vmas.covers(address, end):
        raise ENOMEM("there is a hole in the range")
    return b"\1" * ((end - address) // PAGE_SIZE)


# Locking -----------------------------------------------------------------------------------------


async def mlock(memory: MemoryManager, context: Context, address: int, length: int, on_fault: bool,
                limits: LimitSource, may_lock: bool) -> None:
    """Locks a range into memory, which here means: accounts for it and brings it in."""
    start, end = address & -PAGE_SIZE, page_up(address + length)
    if end > 1 << 64:
        raise EINVAL("the range wraps")
    already = sum(
        min(end, vma.end) - max(start, vma.start)
        for vma in memory.vmas.overlapping(start, end) if vma.flags & VM_LOCKED
    )  # fmt: skip
    _check_may_lock(memory.locked_bytes + end - start - already, limits, may_lock)
    if start == end:
        return
    covered = memory.vmas.covers(start, end)
    async with memory.changing(context):
        bits = _LOCK_BITS if on_fault else VM_LOCKED
        memory.vmas.change(start, end, _FlagChange(bits, _LOCK_BITS))
    if not covered:
        raise ENOMEM("there is a hole in the range")
    if not on_fault:
        await _bring_in(memory, context, start, end)


def _check_may_lock(size: int, limits: LimitSource, may_lock: bool) -> None:
    if may_lock:
        return
    limit = limits.soft(RLIMIT_MEMLOCK)
    if limit == 0:
        raise EPERM("no memory may be locked")
    if size > limit:
        raise ENOMEM("more locked memory than RLIMIT_MEMLOCK")


async def _bring_in(memory: MemoryManager, context: Context, start: int, end: int) -> None:
    """Touches pages ahead; that it cannot be done (PROT_NONE, old hosts) is no error of the caller's."""
    for vma in memory.vmas.overlapping(start, end):
        if not vma.prot & abi.PROT_READ or vma.flags & VM_PLATFORM:
            continue
        private_data = vma.prot & abi.PROT_WRITE and not vma.flags & abi.MAP_SHARED
        advice = abi.MADV_POPULATE_WRITE if private_data else abi.MADV_POPULATE_READ
        low, high = max(start, vma.start), min(end, vma.end)
        context.queue_host_call(HostCall(abi.SYS_MADVISE, (low, high - low, advice)))
        await context.flush()


async def munlock(memory: MemoryManager, context: Context, address: int, length: int) -> None:
    """Unlocks a range."""
    start, end = address & -PAGE_SIZE, page_up(address + length)
    if end > 1 << 64:
        raise EINVAL("the range wraps")
    covered = memory.vmas.covers(start, end)
    async with memory.changing(context):
        memory.vmas.change(start, end, _FlagChange(0, _LOCK_BITS))
    if not covered:
        raise ENOMEM("there is a hole in the range")


async def mlockall(memory: MemoryManager, context: Context, flags: int, limits: LimitSource, may_lock: bool) -> None:
    """Locks all there is, or all there will be, or both."""
    if not flags or flags & ~(abi.MCL_CURRENT | abi.MCL_FUTURE | abi.MCL_ONFAULT) or flags == abi.MCL_ONFAULT:
        raise EINVAL("no such way to lock")
    bits = _LOCK_BITS if flags & abi.MCL_ONFAULT else VM_LOCKED
    _check_may_lock(memory.vmas.total if flags & abi.MCL_CURRENT else 0, limits, may_lock)
    memory.lock_future = bits if flags & abi.MCL_FUTURE else 0
    if flags & abi.MCL_CURRENT:
        async with memory.changing(context):
            memory.vmas.change(0, GUEST_ADDRESS_MAX, _FlagChange(bits, _LOCK_BITS))


async def munlockall(memory: MemoryManager, context: Context) -> None:
    """Unlocks everything, what is to come included."""
    memory.lock_future = 0
    async with memory.changing(context):
        memory.vmas.change(0, GUEST_ADDRESS_MAX, _FlagChange(0, _LOCK_BITS))
