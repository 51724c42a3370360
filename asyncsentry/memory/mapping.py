"""mmap(2): where a mapping goes, what it may be, and what it counts against. Linux's do_mmap() in mm/mmap.c."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NamedTuple, Protocol

from asyncsentry.abi import mman_h as abi
from asyncsentry.abi.resource_h import RLIMIT_MEMLOCK
from asyncsentry.errnos import EACCES, EAGAIN, EEXIST, EINVAL, ENOMEM, EOPNOTSUPP, EOVERFLOW, EPERM, LinuxError
from asyncsentry.memory.layout import page_up
from asyncsentry.memory.manager import MAX_MAP_COUNT, PROT_ALL, LimitSource, MemoryManager
from asyncsentry.memory.vma import MAY_ALL, VM_LOCKED, MappedFile, SharedAnonymous, Vma
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX, GUEST_ADDRESS_MIN, PAGE_SIZE, Context

_LOW_32BIT, _HIGH_32BIT = 0x40000000, 0x80000000
_LASTING_FLAGS = abi.MAP_GROWSDOWN | abi.MAP_NORESERVE
_PAGE_OFFSETS = 1 << 52


class MappableFile(MappedFile, Protocol):
    """What mmap(2) asks of a file."""

    maps_as_anonymous: bool

    @property
    def readable(self) -> bool:
        """Whether its access mode lets it be read."""

    @property
    def writable(self) -> bool:
        """Whether its access mode lets it be written."""

    def host_descriptor(self, writable: bool) -> int:
        """Gives a host descriptor of its content; ENODEV if it cannot be mapped."""


class Mapping(NamedTuple):
    """What is to be mapped: the arguments of mmap(2)."""

    address: int
    length: int
    prot: int
    flags: int
    file: MappableFile | None = None
    offset: int = 0
    no_exec: bool = False
    """Whether the file lies on a noexec mount."""
    may_lock: bool = True
    """Whether RLIMIT_MEMLOCK does not bind the caller."""


async def mmap(memory: MemoryManager, context: Context, request: Mapping, limits: LimitSource) -> int:
    """Maps anonymous memory or a file and gives where, with mmap(2)'s checks in Linux's order."""
    answer = begin_mmap(memory, context, request, limits)
    return answer if isinstance(answer, int) else await answer


def begin_mmap(memory: MemoryManager, context: Context, request: Mapping, limits: LimitSource) -> int | Awaitable[int]:
    """Does :func:`mmap` at once where nobody shares the memory; otherwise gives the rest to await."""
    if not request.length:
        raise EINVAL("nothing to map")
    length = page_up(request.length)
    if length > GUEST_ADDRESS_MAX:
        raise ENOMEM("longer than the address space")
    if request.offset // PAGE_SIZE + length // PAGE_SIZE >= _PAGE_OFFSETS:
        raise EOVERFLOW("the offset overflows")
    if len(memory.vmas) >= MAX_MAP_COUNT:
        raise ENOMEM("too many areas")
    if memory.users > 1:
        return _mmap_shared(memory, context, request, length, limits)
    memory.begin_change()
    try:
        start = _place(memory, context, request, length, limits)
    except LinuxError:
        memory.vmas.rollback()
        raise
    return memory.finish_change(context, start)


async def _mmap_shared(memory: MemoryManager, context: Context, request: Mapping, length: int,
                       limits: LimitSource) -> int:
    async with memory.changing(context):
        return _place(memory, context, request, length, limits)


def _place(memory: MemoryManager, context: Context, request: Mapping, length: int, limits: LimitSource) -> int:
    start = _choose_address(memory, request.address, length, request.flags)
    vma, descriptor = _describe(request, start, start + length, memory.lock_future)
    _check_limits(memory, vma, request, limits)
    memory.map_area(context, vma, request.flags, descriptor)
    return start


def _choose_address(memory: MemoryManager, address: int, length: int, flags: int) -> int:
    if flags & (abi.MAP_FIXED | abi.MAP_FIXED_NOREPLACE):
        memory.check_fixed(address, length)
        if flags & abi.MAP_FIXED_NOREPLACE and not memory.vmas.is_free(address, address + length):
            raise EEXIST("the range is in use")
        return address
    if address:
        hint = max(address & -PAGE_SIZE, GUEST_ADDRESS_MIN)
        if hint + length <= GUEST_ADDRESS_MAX and memory.is_free_with_gap(hint, hint + length):
            return hint
    if flags & abi.MAP_32BIT:
        found = memory.vmas.lowest_gap(length, _LOW_32BIT, _HIGH_32BIT)
    else:
        found = memory.find_free(length)
    if found is None:
        raise ENOMEM("no room in the address space")
    return found


def _describe(request: Mapping, start: int, end: int, lock_bits: int) -> tuple[Vma, int | None]:
    """Checks a mapping's type against its file; gives the area and the descriptor the host maps."""
    flags, prot = request.flags, request.prot & PROT_ALL
    kind, lasting = flags & abi.MAP_TYPE, flags & _LASTING_FLAGS | lock_bits
    if flags & abi.MAP_LOCKED:
        lasting |= VM_LOCKED
    if request.file is not None and not request.file.maps_as_anonymous:
        may, descriptor = _check_file(request, request.file)
        lasting |= abi.MAP_PRIVATE if kind == abi.MAP_PRIVATE else abi.MAP_SHARED
        return Vma(start, end, prot, lasting, request.file, request.offset, may=may), descriptor
    if kind == abi.MAP_SHARED:
        if flags & abi.MAP_GROWSDOWN:
            raise EINVAL("shared memory does not grow")
        return Vma(start, end, prot, abi.MAP_SHARED | lasting, SharedAnonymous()), None
    if kind != abi.MAP_PRIVATE:
        raise EINVAL("neither shared nor private")
    return Vma(start, end, prot, abi.MAP_PRIVATE | lasting), None


def _check_file(request: Mapping, file: MappableFile) -> tuple[int, int]:
    """Checks how a file may be mapped; gives what mprotect(2) may allow later, and its host descriptor."""
    flags, kind, may = request.flags, request.flags & abi.MAP_TYPE, MAY_ALL
    if kind not in (abi.MAP_SHARED, abi.MAP_PRIVATE, abi.MAP_SHARED_VALIDATE):
        raise EINVAL("neither shared nor private")
    if kind == abi.MAP_SHARED_VALIDATE and flags & ~abi.MAP_LEGACY_MASK & ~abi.MAP_FIXED_NOREPLACE:
        raise EOPNOTSUPP("unknown mapping flags")
    shared = kind != abi.MAP_PRIVATE
    if shared and not file.writable:
        may &= ~abi.PROT_WRITE
        if request.prot & abi.PROT_WRITE:
            raise EACCES("the file is not open for writing")
    if not file.readable:
        raise EACCES("the file is not open for reading")
    if request.no_exec:
        may &= ~abi.PROT_EXEC
        if request.prot & abi.PROT_EXEC:
            raise EPERM("the file lies on a noexec mount")
    try:
        descriptor = file.host_descriptor(shared and file.writable)
    except EPERM:  # sealed against writing: it may still be looked at
        if request.prot & abi.PROT_WRITE:
            raise
        descriptor = file.host_descriptor(False)
        may &= ~abi.PROT_WRITE
    if flags & abi.MAP_GROWSDOWN:
        raise EINVAL("files do not grow downwards")
    return may, descriptor


def _check_limits(memory: MemoryManager, vma: Vma, request: Mapping, limits: LimitSource) -> None:
    growth = vma.end - vma.start
    if request.flags & abi.MAP_FIXED:
        for other in memory.vmas.overlapping(vma.start, vma.end):
            growth -= min(vma.end, other.end) - max(vma.start, other.start)
    memory.check_growth(growth, memory.is_data(vma), limits)
    if memory.account is not None:
        memory.check_commitment(growth, vma)
    if vma.flags & VM_LOCKED and not request.may_lock:
        limit = limits.soft(RLIMIT_MEMLOCK)
        if request.flags & abi.MAP_LOCKED and limit == 0:
            raise EPERM("no memory may be locked")
        if memory.locked_bytes + vma.size > limit:
            raise EAGAIN("more locked memory than RLIMIT_MEMLOCK")
