"""mremap(2): growing, shrinking and moving a mapping. The host moves the pages; the checks are Linux's mm/mremap.c."""

from __future__ import annotations

from typing import NamedTuple

from asyncsentry.abi import mman_h as abi
from asyncsentry.abi.resource_h import RLIMIT_MEMLOCK
from asyncsentry.errnos import EAGAIN, EFAULT, EINVAL, ENOMEM
from asyncsentry.memory.layout import page_up
from asyncsentry.memory.manager import MAX_MAP_COUNT, LimitSource, MemoryManager
from asyncsentry.memory.vma import VM_LOCKED, VM_LOCKONFAULT, Vma
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX, GUEST_ADDRESS_MIN, PAGE_SIZE, Context, HostCall

_FLAGS = abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED | abi.MREMAP_DONTUNMAP


class Remap(NamedTuple):
    """The arguments of mremap(2), lengths in whole pages."""

    old: int
    old_length: int
    new_length: int
    flags: int
    new: int


async def mremap(memory: MemoryManager, context: Context, request: Remap, limits: LimitSource,
                 may_lock: bool = True) -> int:
    """Changes size or place of a mapping and gives where it is then."""
    flags = request.flags
    if flags & ~_FLAGS or (flags & abi.MREMAP_FIXED and not flags & abi.MREMAP_MAYMOVE):
        raise EINVAL("unknown flags, or a fixed address without moving")
    if request.old & (PAGE_SIZE - 1):
        raise EINVAL("address is not a page's")
    request = request._replace(old_length=page_up(request.old_length), new_length=page_up(request.new_length))
    if flags & abi.MREMAP_DONTUNMAP and (
        not flags & abi.MREMAP_MAYMOVE or request.old_length != request.new_length
    ):
        raise EINVAL("pages are left behind only by a move of the same size")
    if not request.new_length or request.new_length > GUEST_ADDRESS_MAX or request.old_length > GUEST_ADDRESS_MAX:
        raise EINVAL("a length that cannot be")
    async with memory.changing(context):
        if flags & (abi.MREMAP_FIXED | abi.MREMAP_DONTUNMAP):
            return _move_to(memory, context, request, limits, may_lock)
        return _resize(memory, context, request, limits, may_lock)


def _move_to(memory: MemoryManager, context: Context, request: Remap, limits: LimitSource, may_lock: bool) -> int:
    """Moves to an address of the caller's choice (or, leaving pages behind, to any)."""
    target = request.new
    if request.flags & abi.MREMAP_FIXED:
        if target & (PAGE_SIZE - 1) or target + request.new_length > GUEST_ADDRESS_MAX:
            raise EINVAL("the new range is none of pages")
        if target < request.old + request.old_length and request.old < target + request.new_length:
            raise EINVAL("old and new range overlap")
        memory.check_fixed(target, request.new_length)
        vma = _area_to_move(memory, request, limits, may_lock)
        memory.unmap_range(context, target, request.new_length)
    else:
        vma = _area_to_move(memory, request, limits, may_lock)
        target = _find_free(memory, request.new, request.new_length)
    if request.old_length > request.new_length:
        memory.unmap_range(context, request.old + request.new_length, request.old_length - request.new_length)
        request = request._replace(old_length=request.new_length)
    return _move(memory, context, request, vma, target)


def _resize(memory: MemoryManager, context: Context, request: Remap, limits: LimitSource, may_lock: bool) -> int:
    """Shrinks or grows in place if that can be, and else moves if that is allowed."""
    old, old_length, new_length = request.old, request.old_length, request.new_length
    if old_length >= new_length:
        if memory.vmas.find(old) is None:
            raise EFAULT("nothing mapped there")
        if old_length > new_length:
            memory.unmap_range(context, old + new_length, old_length - new_length)
        return old
    vma = _area_to_move(memory, request, limits, may_lock)
    end = old + old_length
    if old_length and end == vma.end and _can_hold(memory, end, old + new_length):
        grown = vma.part(vma.start, vma.end)
        grown.end = old + new_length
        memory.vmas.replace(vma.start, old + new_length, grown)
        context.queue_host_call(HostCall(abi.SYS_MREMAP, (old, old_length, new_length, 0)))
        return old
    if not request.flags & abi.MREMAP_MAYMOVE:
        raise ENOMEM("no room to grow in place")
    return _move(memory, context, request, vma, _find_free(memory, 0, new_length))


def _can_hold(memory: MemoryManager, start: int, end: int) -> bool:
    return end <= GUEST_ADDRESS_MAX and memory.is_free_with_gap(start, end)


def _find_free(memory: MemoryManager, hint: int, length: int) -> int:
    hint &= -PAGE_SIZE
    if hint >= GUEST_ADDRESS_MIN and _can_hold(memory, hint, hint + length):
        return hint
    found = memory.find_free(length)
    if found is None:
        raise ENOMEM("no room in the address space")
    return found


def _area_to_move(memory: MemoryManager, request: Remap, limits: LimitSource, may_lock: bool) -> Vma:
    """Gives the one area the old range lies in, once all limits allow what is asked (``vma_to_resize``)."""
    vma = memory.vmas.find(request.old)
    if vma is None:
        raise EFAULT("nothing mapped there")
    memory.check_not_platform(request.old, request.old + max(request.old_length, 1))
    if not request.old_length and not vma.flags & abi.MAP_SHARED:
        raise EINVAL("only shared memory can be mapped twice")
    if request.old + request.old_length > vma.end:
        raise EFAULT("the range spans several areas")
    growth = request.new_length - request.old_length
    if request.flags & abi.MREMAP_DONTUNMAP:
        growth = request.new_length
    if growth > 0:
        memory.check_growth(growth, memory.is_data(vma), limits)
        memory.check_commitment(growth, vma)
        if vma.flags & VM_LOCKED and not may_lock and memory.locked_bytes + growth > limits.soft(RLIMIT_MEMLOCK):
            raise EAGAIN("more locked memory than RLIMIT_MEMLOCK")
    if len(memory.vmas) >= MAX_MAP_COUNT - 3:
        raise ENOMEM("too many areas")
    return vma


def _move(memory: MemoryManager, context: Context, request: Remap, vma: Vma, target: int) -> int:
    old, old_length, new_length = request.old, request.old_length, request.new_length
    moved = vma.part(old, old + old_length)
    moved.start, moved.end = target, target + new_length
    if request.flags & abi.MREMAP_DONTUNMAP:
        stays = vma.part(old, old + old_length)
        stays.flags &= ~(VM_LOCKED | VM_LOCKONFAULT)
        memory.vmas.replace(old, old + old_length, stays)
    elif old_length:
        memory.vmas.replace(old, old + old_length, None)
    memory.vmas.replace(target, target + new_length, moved)
    flags = abi.MREMAP_MAYMOVE | abi.MREMAP_FIXED | request.flags & abi.MREMAP_DONTUNMAP
    context.queue_host_call(HostCall(abi.SYS_MREMAP, (old, old_length, new_length, flags, target)))
    return target
