"""Address spaces as guests see them: areas, and the host calls that make the host's memory match them.

The host does the mapping: each change is checked here as Linux would, noted in the set of areas, and
queued as a host call on the trapped context, which carries it out before the guest runs on. If the host
refuses then, the change is taken back (:meth:`MemoryManager.host_call_failed`). Where several threads
share the space each change is carried out before the next begins, under a lock: otherwise one thread's
late munmap could hit what another has mapped meanwhile. Here are munmap(2), mprotect(2) and brk(2); mmap(2)
is in ``mapping.py``, mremap(2) in ``remap.py``, madvise(2), mlock(2) and kin in ``advice.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Protocol

from asyncsentry.abi import mman_h as abi
from asyncsentry.abi.resource_h import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK
from asyncsentry.errnos import (
    BY_NUMBER,
    EACCES,
    EINVAL,
    ENOMEM,
    EPERM,
    LinuxError,
)
from asyncsentry.memory.account import MemoryAccount
from asyncsentry.memory.copying import GuestMemory
from asyncsentry.memory.layout import STACK_EXTENT_MAX, page_up
from asyncsentry.memory.vma import (
    GUARD_GAP,
    VM_DONTFORK,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_PLATFORM,
    SharedAnonymous,
    Vma,
    VmaSet,
)
from asyncsentry.platforms.base import (
    GUEST_ADDRESS_MAX,
    GUEST_ADDRESS_MIN,
    PAGE_SIZE,
    AddressSpace,
    Context,
    HostCall,
)

PROT_ALL = abi.PROT_READ | abi.PROT_WRITE | abi.PROT_EXEC
MAX_MAP_COUNT = 65530
"""Areas one address space may have, /proc/sys/vm/max_map_count."""
_HOST_FLAGS = abi.MAP_NORESERVE | abi.MAP_POPULATE | abi.MAP_NONBLOCK | abi.MAP_STACK
_GROWTH_STEP = 128 << 10


class LimitSource(Protocol):
    """The resource limits of the calling process."""

    def soft(self, resource: int) -> int:
        """Gives the limit in force, ``RLIM_INFINITY`` for none."""


class MemoryManager(GuestMemory):
    """The memory of one or more guest threads: Linux's ``mm_struct``."""

    def __init__(self, space: AddressSpace, mmap_base: int = GUEST_ADDRESS_MAX, vdso: tuple[int, int] = (0, 0)) -> None:
        super().__init__(space)
        self.vmas = VmaSet()
        self.users = 1
        """Threads, of whatever process, that run in it."""
        self.mmap_base = mmap_base
        self.vdso = vdso
        self.start_code = self.end_code = self.start_data = self.end_data = 0
        self.start_brk = self.brk = self.start_stack = 0
        self.arg_start = self.arg_end = self.env_start = self.env_end = 0
        self.auxv = b""
        self.lock_future = 0
        """``VM_LOCKED`` bits that new areas get, mlockall(2) with MCL_FUTURE."""
        self.membarriers = 0
        """Commands registered with membarrier(2)."""
        self.account: MemoryAccount | None = None
        """The memory of the whole sandbox, if that is limited."""
        self.aio_contexts: dict[int, Any] = {}
        """Contexts of io_setup(2) by address; kept by ``tasks/aio.py``. Children do not inherit them."""
        self._lock = asyncio.Lock()
        self._brk_before = 0
        self._failure_result: int | None = None
        if vdso[1]:
            self.vmas.replace(vdso[0], vdso[0] + page_up(vdso[1]), Vma(
                vdso[0], vdso[0] + page_up(vdso[1]), abi.PROT_READ | abi.PROT_EXEC,
                abi.MAP_PRIVATE | VM_PLATFORM, name="[vdso]", may=abi.PROT_READ | abi.PROT_EXEC))  # fmt: skip

    @property
    def total_vm(self) -> int:
        """Bytes mapped."""
        return self.vmas.total

    @property
    def peak_vm(self) -> int:
        """The most bytes that were ever mapped."""
        return self.vmas.peak

    @property
    def resident_bytes(self) -> int:
        """An upper bound of the bytes in memory: only the host knows which pages are there.

        Reserved and inaccessible memory counts nothing, a stack what Linux maps of it at first.
        """
        total = 0
        for vma in self.vmas:
            if vma.flags & abi.MAP_GROWSDOWN:
                total += min(vma.size, _GROWTH_STEP)
            elif vma.prot and not vma.flags & abi.MAP_NORESERVE:
                total += vma.size
        return total

    @property
    def locked_bytes(self) -> int:
        """Bytes the guest has locked."""
        return sum(vma.size for vma in self.vmas if vma.flags & VM_LOCKED)

    @property
    def data_vm(self) -> int:
        """Bytes that are private and writable, stacks apart: what RLIMIT_DATA limits."""
        return sum(vma.size for vma in self.vmas if self.is_data(vma))

    def is_data(self, vma: Vma) -> bool:
        """Whether RLIMIT_DATA counts an area."""
        private = vma.flags & abi.MAP_TYPE == abi.MAP_PRIVATE
        return private and bool(vma.prot & abi.PROT_WRITE) and not vma.flags & abi.MAP_GROWSDOWN

    # Life ----------------------------------------------------------------------------------------

    def fork(self, child: Context) -> MemoryManager:
        """Gives the memory of a forked context: the same areas, less those kept from children."""
        other = MemoryManager(child.space, self.mmap_base)
        other.vdso, other.account = self.vdso, self.account
        dropped = VM_LOCKED | VM_LOCKONFAULT | VM_DONTFORK
        if any(vma.flags & dropped for vma in self.vmas):
            kept = [vma.changed(flags=vma.flags & ~dropped) for vma in self.vmas if not vma.flags & VM_DONTFORK]
            other.vmas = self.vmas.copy(kept)
        else:
            other.vmas = self.vmas.copy()
        for name in (
            "start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack",
            "arg_start", "arg_end", "env_start", "env_end", "auxv", "membarriers",
        ):  # fmt: skip
            setattr(other, name, getattr(self, name))
        return other

    async def release(self) -> None:
        """Gives up what was mapped, once :attr:`users` has fallen to zero."""
        self.vmas.splice(0, len(self.vmas), [])
        self.vmas.begin()
        await self.release_orphans()

    async def release_orphans(self) -> None:
        """Releases files that no area and no descriptor refers to any more."""
        while self.vmas.orphans:
            file = self.vmas.orphans.pop()
            if file.references == 0:
                await file.finish()

    # Changes and the host ------------------------------------------------------------------------

    def changing(self, context: Context) -> Change:
        """Brackets one change of the address space: ``async with memory.changing(context):``."""
        return Change(self, context, self._lock if self.users > 1 else None)

    def begin_change(self) -> None:
        """Makes what was changed before final."""
        self.vmas.begin()
        self._brk_before, self._failure_result = self.brk, None

    def finish_change(self, context: Context, result: int) -> int | Awaitable[int]:
        """Ends a change made under no lock, in memory that is not shared; gives ``result``, now or to await."""
        return self._let_orphans_go(context, result) if self.vmas.orphans else result

    async def _let_orphans_go(self, context: Context, result: int) -> int:
        await self.flush(context)  # a file must not go before its pages
        await self.release_orphans()
        return result

    async def flush(self, context: Context) -> None:
        """Carries queued host calls out now; raises what the host said and takes the change back if one failed."""
        for result in await context.flush():
            if -4096 < result < 0:
                self._take_back()
                raise BY_NUMBER.get(-result, ENOMEM)("the host refused to change the address space")

    async def settle(self, context: Context, result: int) -> int:
        """Carries queued host calls out now and gives what the guest's call returns, ``result`` unless one failed.

        A signal handler may use memory that its call has just mapped, and a late failure would correct its frame.
        """
        try:
            await self.flush(context)
        except LinuxError as error:
            return -error.errno if self._failure_result is None else self._failure_result
        return result

    def host_call_failed(self, context: Context) -> int:
        """Takes back the last change, which the host refused, and gives what the guest's call returns."""
        result = self._failure_result
        self._take_back()
        errno = abs(context.host_error)
        return result if result is not None else -errno if errno in BY_NUMBER else -ENOMEM.errno

    def _take_back(self) -> None:
        self.vmas.rollback()
        self.brk = self._brk_before

    # Areas ---------------------------------------------------------------------------------------

    def map_area(self, context: Context, vma: Vma, flags: int = 0, descriptor: int | None = None) -> None:
        """Places an area, whatever was there, and queues its mapping; no checks (for the loader and ``mapping.py``)."""
        host = vma.flags & abi.MAP_TYPE | abi.MAP_FIXED | flags & _HOST_FLAGS
        if flags & abi.MAP_LOCKED:
            host |= abi.MAP_POPULATE
        offset = vma.offset
        if descriptor is None:
            host |= abi.MAP_ANONYMOUS
            offset = 0
        self.vmas.replace(vma.start, vma.end, vma)
        arguments = (vma.start, vma.size, vma.prot, host, 0xFFFFFFFFFFFFFFFF if descriptor is None else 0, offset)
        context.queue_host_call(HostCall(abi.SYS_MMAP, arguments, descriptor))

    def check_fixed(self, address: int, length: int) -> None:
        """Refuses a range a guest may not place a mapping in."""
        if address & (PAGE_SIZE - 1):
            raise EINVAL("address is not a page's")
        if address + length > GUEST_ADDRESS_MAX:
            raise ENOMEM("beyond guest addresses")
        if address < GUEST_ADDRESS_MIN:
            raise EPERM("below the lowest address to map")
        self.check_not_platform(address, address + length)

    def check_not_platform(self, start: int, end: int) -> None:
        """Refuses to change the vDSO, on which the platform relies."""
        base, size = self.vdso
        if size and start < base + size and base < end:
            raise EPERM("the vdso is sealed")

    def find_free(self, length: int) -> int | None:
        """Finds room, from the mapping base down; above it only when there is none."""
        found = self.vmas.highest_gap(length, GUEST_ADDRESS_MIN, self.mmap_base)
        if found is None:
            found = self.vmas.highest_gap(length, GUEST_ADDRESS_MIN, GUEST_ADDRESS_MAX)
        return found

    def is_free_with_gap(self, start: int, end: int) -> bool:
        """Whether a range is free and keeps clear of a stack above it."""
        following = self.vmas.next_from(start)
        return following is None or end <= following.guarded_start

    def check_growth(self, size: int, is_data: bool, limits: LimitSource) -> None:
        """ENOMEM if ``size`` more bytes exceed RLIMIT_AS or, for private writable memory, RLIMIT_DATA."""
        if self.vmas.total + size > limits.soft(RLIMIT_AS):
            raise ENOMEM("more memory than RLIMIT_AS")
        if is_data:
            limit = limits.soft(RLIMIT_DATA)
            if limit != RLIM_INFINITY and self.data_vm + size > limit:
                raise ENOMEM("more data than RLIMIT_DATA")

    def check_commitment(self, size: int, vma: Vma) -> None:
        """ENOMEM if the sandbox has not ``size`` bytes left for an area that needs memory of its own."""
        if self.account is None or size <= 0 or not vma.prot & abi.PROT_WRITE or vma.flags & abi.MAP_NORESERVE:
            return
        if vma.flags & abi.MAP_TYPE == abi.MAP_PRIVATE or isinstance(vma.file, SharedAnonymous):
            self.account.check_mapping(size)

    # munmap, mprotect, brk -----------------------------------------------------------------------

    async def munmap(self, context: Context, address: int, length: int) -> None:
        """Removes whatever is mapped in a range."""
        answer = self.begin_munmap(context, address, length)
        if not isinstance(answer, int):
            await answer

    def begin_munmap(self, context: Context, address: int, length: int) -> int | Awaitable[int]:
        """Does :meth:`munmap` at once where nobody shares the memory; otherwise gives the rest to await."""
        length = page_up(length)
        if address & (PAGE_SIZE - 1) or not length or address + length > GUEST_ADDRESS_MAX:
            raise EINVAL("not a range of pages")
        if self.users > 1:
            return self._munmap_shared(context, address, length)
        self.begin_change()
        self.unmap_range(context, address, length)  # raises before it has changed anything, or not at all
        return self.finish_change(context, 0)

    async def _munmap_shared(self, context: Context, address: int, length: int) -> int:
        async with self.changing(context):
            self.unmap_range(context, address, length)
        return 0

    def unmap_range(self, context: Context, address: int, length: int) -> None:
        """Removes a range of whole pages inside a change."""
        end = address + length
        self.check_not_platform(address, end)
        areas = self.vmas.overlapping(address, end)
        if not areas:
            return
        if areas[0].start < address and areas[0].end > end and len(self.vmas) >= MAX_MAP_COUNT:
            raise ENOMEM("too many areas")
        self.vmas.replace(address, end, None)
        context.queue_host_call(HostCall(abi.SYS_MUNMAP, (address, length)))

    async def mprotect(self, context: Context, address: int, length: int, prot: int) -> None:
        """Changes the protection of a range; what precedes a hole in it is changed all the same."""
        grows = prot & (abi.PROT_GROWSDOWN | abi.PROT_GROWSUP)
        prot &= ~(abi.PROT_GROWSDOWN | abi.PROT_GROWSUP)
        if grows == abi.PROT_GROWSDOWN | abi.PROT_GROWSUP or address & (PAGE_SIZE - 1):
            raise EINVAL("not a page, or growing both ways")
        if not length:
            return
        end = address + page_up(length)
        if end > 1 << 64 or end <= address:
            raise ENOMEM("the range wraps")
        if prot & ~(PROT_ALL | abi.PROT_SEM):
            raise EINVAL("unknown protection")
        prot &= PROT_ALL
        async with self.changing(context):
            if grows:
                address = self._start_of_growing(address, grows)
            done, failure = self._protectable(address, end, prot)
            if done > address:
                self.check_not_platform(address, done)
                self.protect_area(context, address, done, prot)
        if failure is not None:
            raise failure

    def protect_area(self, context: Context, start: int, end: int, prot: int) -> None:
        """Changes the protection of a mapped range inside a change; no checks."""
        self.vmas.change(start, end, _Protection(prot))
        context.queue_host_call(HostCall(abi.SYS_MPROTECT, (start, end - start, prot)))

    def _start_of_growing(self, address: int, grows: int) -> int:
        vma = self.vmas.find(address)
        if vma is None:
            raise ENOMEM("nothing mapped there")
        if grows == abi.PROT_GROWSUP or not vma.flags & abi.MAP_GROWSDOWN:
            raise EINVAL("the area does not grow that way")
        return vma.start

    def _protectable(self, start: int, end: int, prot: int) -> tuple[int, LinuxError | None]:
        """Gives up to where a protection can be given, and why not further."""
        for vma in self.vmas.overlapping(start, end):
            if vma.start > start:
                break
            if prot & ~vma.may:
                return start, EACCES("the file was not opened for that")
            start = min(vma.end, end)
        return (start, None) if start == end else (start, ENOMEM("there is a hole in the range"))

    async def set_brk(self, context: Context, new: int, limits: LimitSource) -> int:
        """Moves the end of the heap and gives where it is then: unmoved if that cannot be, brk(2)."""
        if new < self.start_brk or new > GUEST_ADDRESS_MAX:
            return self.brk
        if new - self.start_brk + self.end_data - self.start_data > limits.soft(RLIMIT_DATA):
            return self.brk
        try:
            async with self.changing(context):
                self._failure_result = self.brk
                self._move_brk(context, page_up(self.brk), page_up(new), limits)
                self.brk = new
        except LinuxError:
            return self.brk
        return new

    def _move_brk(self, context: Context, old_end: int, new_end: int, limits: LimitSource) -> None:
        if new_end < old_end:
            self.unmap_range(context, new_end, old_end - new_end)
        elif new_end > old_end:
            if not self.is_free_with_gap(old_end, new_end + PAGE_SIZE):
                raise ENOMEM("the heap would run into a mapping")
            self.check_growth(new_end - old_end, True, limits)
            flags = abi.MAP_PRIVATE | self.lock_future
            heap = Vma(old_end, new_end, abi.PROT_READ | abi.PROT_WRITE, flags, name="[heap]")
            self.check_commitment(heap.size, heap)
            self.map_area(context, heap)

    # Faults --------------------------------------------------------------------------------------

    async def handle_fault(self, context: Context, address: int, limits: LimitSource) -> bool:
        """Lets a stack grow down to a faulting address; false if the fault is the guest's own affair."""
        has_waited = self._lock.locked()
        if has_waited:
            async with self._lock:
                pass
        page = address & -PAGE_SIZE
        if self._growing_to(page, limits) is None:
            # The change of another thread that was on its way to the host may be just what the access missed.
            return has_waited and self.vmas.find(page) is not None
        try:
            async with self.changing(context):
                vma = self._growing_to(page, limits)
                if vma is not None:  # else another thread has let it grow while we waited for the lock
                    self._grow(context, vma, page, limits)
        except LinuxError:
            return False
        return True

    def _growing_to(self, page: int, limits: LimitSource) -> Vma | None:
        """Gives the stack that may grow down to a page that is not mapped."""
        vma = self.vmas.next_from(page)
        if vma is None or vma.start <= page or not vma.flags & abi.MAP_GROWSDOWN or page < GUEST_ADDRESS_MIN:
            return None
        if vma.end - page > limits.soft(RLIMIT_STACK) or self.vmas.overlapping(max(0, page - GUARD_GAP), page):
            return None
        return vma

    def _grow(self, context: Context, vma: Vma, page: int, limits: LimitSource) -> None:
        limit = limits.soft(RLIMIT_STACK)
        start = max(page - _GROWTH_STEP, vma.end - min(limit, 1 << 47) & -PAGE_SIZE, GUEST_ADDRESS_MIN)
        if self.vmas.overlapping(max(0, start - GUARD_GAP), page):
            start = page
        self.check_growth(vma.start - start, False, limits)
        grown = Vma(start, vma.start, vma.prot, vma.flags, name=vma.name, may=vma.may)
        self.map_area(context, grown, abi.MAP_NORESERVE)

    def map_stack(self, context: Context, top: int, size: int, prot: int) -> None:
        """Maps a program's stack below ``top``."""
        start = top - min(page_up(size), STACK_EXTENT_MAX)
        flags = abi.MAP_PRIVATE | abi.MAP_GROWSDOWN
        self.map_area(context, Vma(start, top, prot, flags, name="[stack]"), abi.MAP_NORESERVE | abi.MAP_STACK)

    # Identity of shared memory -------------------------------------------------------------------

    def shared_key(self, address: int) -> tuple[object, int] | None:
        """Names a shared word across processes: its object and the offset there; ``None`` in private memory."""
        vma = self.vmas.find(address)
        if vma is None or not vma.flags & abi.MAP_SHARED or vma.file is None:
            return None
        return vma.file.inode or vma.file, vma.offset + address - vma.start


class Change:
    """One change of an address space: a lock where it is shared, and all or nothing of it."""

    __slots__ = ("_context", "_lock", "_memory")

    def __init__(self, memory: MemoryManager, context: Context, lock: asyncio.Lock | None) -> None:
        self._memory = memory
        self._context = context
        self._lock = lock

    async def __aenter__(self) -> None:
        if self._lock is not None:
            await self._lock.acquire()
        self._memory.begin_change()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        traceback: TracebackType | None) -> None:
        try:
            if error is not None:
                self._memory.vmas.rollback()
            elif self._lock is not None or self._memory.vmas.orphans:
                # Other threads may act on the change at once, and a file must not go before its pages.
                await self._memory.flush(self._context)
                await self._memory.release_orphans()
        finally:
            if self._lock is not None:
                self._lock.release()


class _Protection:
    """Gives areas a new protection."""

    __slots__ = ("_prot",)

    def __init__(self, prot: int) -> None:
        self._prot = prot

    def __call__(self, vma: Vma) -> Vma:
        return vma.changed(prot=self._prot)

