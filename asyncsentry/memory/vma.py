"""Areas of guest memory and the sorted set of them that an address space is.

An area (Linux's ``vm_area_struct``) never changes once it is in a set: changes put new areas in its
place, so that fork(2) shares them. Neighbours that differ in nothing are one area, as /proc/PID/maps
shows. Every change goes through :meth:`VmaSet.splice`, which counts references to files and keeps a
journal from which a change that the host refused is taken back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from asyncsentry.abi.mman_h import MAP_GROWSDOWN, PROT_EXEC, PROT_READ, PROT_WRITE

GUARD_GAP = 256 * 4096
"""Room kept free below an area that grows down, Linux's stack_guard_gap."""
MAY_ALL = PROT_READ | PROT_WRITE | PROT_EXEC

VM_DONTFORK = 1 << 32
VM_WIPEONFORK = 1 << 33
VM_DONTDUMP = 1 << 34
VM_LOCKED = 1 << 35
VM_LOCKONFAULT = 1 << 36
VM_PLATFORM = 1 << 37
"""Belongs to the platform (the vDSO): shown, but not the guest's to change."""


class MappedFile(Protocol):
    """What an area needs of the file behind it; :class:`~asyncsentry.fs.file.File` is one."""

    inode: Any
    location: Any
    references: int

    def describe(self) -> str:
        """Gives the name shown for files without a path."""

    async def finish(self) -> None:
        """Ends it, when :attr:`references` has fallen to zero."""


class SharedAnonymous:
    """The identity of one shared anonymous mapping: what its pages in several processes have in common."""

    inode = None
    location = None

    def __init__(self) -> None:
        self.references = 0

    def describe(self) -> str:
        """Gives the name Linux shows."""
        return "/dev/zero (deleted)"

    async def finish(self) -> None:
        """Holds nothing: the host frees the pages."""


class Vma:
    """One area: a range of pages with the same protection, flags and file. Never changed in place."""

    __slots__ = ("end", "file", "flags", "may", "name", "offset", "prot", "start")

    def __init__(self, start: int, end: int, prot: int, flags: int, file: MappedFile | None = None, offset: int = 0,
                 name: str = "", may: int = MAY_ALL) -> None:
        self.start = start
        self.end = end
        self.prot = prot
        self.flags = flags
        """``MAP_SHARED`` or ``MAP_PRIVATE``, further ``MAP_*`` bits that last, and ``VM_*`` bits."""
        self.file = file
        self.offset = offset
        """Where in the file it begins; 0 without one."""
        self.name = name
        """``[heap]``, ``[stack]``, … or empty."""
        self.may = may
        """Protections mprotect(2) may give."""

    @property
    def size(self) -> int:
        """Bytes covered."""
        return self.end - self.start

    def part(self, start: int, end: int) -> Vma:
        """Gives the part of it in a range that lies inside it."""
        offset = self.offset + start - self.start if self.file is not None else 0
        return Vma(start, end, self.prot, self.flags, self.file, offset, self.name, self.may)

    def up_to(self, end: int) -> Vma:
        """Gives it with another end."""
        return Vma(self.start, end, self.prot, self.flags, self.file, self.offset, self.name, self.may)

    def changed(self, prot: int | None = None, flags: int | None = None, name: str | None = None) -> Vma:
        """Gives the same range with other properties."""
        return Vma(
            self.start, self.end, self.prot if prot is None else prot, self.flags if flags is None else flags,
            self.file, self.offset, self.name if name is None else name, self.may,
        )  # fmt: skip

    def continues(self, other: Vma) -> bool:
        """Whether it goes on where ``other`` ends, alike in everything."""
        return (
            other.end == self.start and other.prot == self.prot and other.flags == self.flags
            and other.file is self.file and other.may == self.may and other.name == self.name
            and (self.file is None or other.offset + other.end - other.start == self.offset)
        )  # fmt: skip

    @property
    def guarded_start(self) -> int:
        """Its start, less the gap that must stay free below a growing area."""
        return self.start - GUARD_GAP if self.flags & MAP_GROWSDOWN else self.start

    def __repr__(self) -> str:
        return f"<Vma {self.start:x}-{self.end:x} prot={self.prot} flags={self.flags:#x} {self.name}>"


class VmaSet:
    """Areas sorted by address, none overlapping another."""

    __slots__ = ("_high", "_skipped", "_starts", "_top", "_vmas", "journal", "orphans", "peak", "total")

    def __init__(self) -> None:
        self._vmas: list[Vma] = []
        self._starts: list[int] = []
        self.total = 0
        """Bytes in all areas."""
        self.peak = 0
        """The largest that :attr:`total` has been."""
        self.journal: list[tuple[int, int, list[Vma]]] = []
        """Splices since the last :meth:`begin`: index, areas put in, areas taken out."""
        self.orphans: list[MappedFile] = []
        """Files whose last reference was an area that went away: whoever changed the set releases them."""
        # All gaps between _top and _high hold at most _skipped bytes: a search below _high for more begins at _top.
        self._high = 0
        self._top = 0
        self._skipped = 0

    def __iter__(self) -> Iterator[Vma]:
        return iter(self._vmas)

    def __len__(self) -> int:
        return len(self._vmas)

    def copy(self, areas: list[Vma] | None = None) -> VmaSet:
        """Gives a set with the same areas, or with those given (sorted), counting references to their files."""
        other = VmaSet()
        other.splice(0, 0, self._vmas[:] if areas is None else areas)
        other.begin()
        return other

    # Finding -------------------------------------------------------------------------------------

    def find(self, address: int) -> Vma | None:
        """Gives the area an address lies in."""
        index = bisect_right(self._starts, address) - 1
        return self._vmas[index] if index >= 0 and self._vmas[index].end > address else None

    def next_from(self, address: int) -> Vma | None:
        """Gives the first area that ends above an address, Linux's ``find_vma``."""
        index = self._first(address)
        return self._vmas[index] if index < len(self._vmas) else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """Gives the areas that share a page with a range."""
        first = self._first(start)
        return self._vmas[first : bisect_left(self._starts, end, first)]

    def covers(self, start: int, end: int) -> bool:
        """Whether every page of a range is mapped."""
        for vma in self.overlapping(start, end):
            if vma.start > start:
                return False
            start = vma.end
        return start >= end

    def is_free(self, start: int, end: int) -> bool:
        """Whether no page of a range is mapped."""
        return self._first(start) == bisect_left(self._starts, end)

    def _first(self, address: int) -> int:
        index = bisect_right(self._starts, address)
        return index - 1 if index and self._vmas[index - 1].end > address else index

    # Changing ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begins a change: what came before stays."""
        self.journal.clear()

    def rollback(self) -> None:
        """Takes back every splice since :meth:`begin`."""
        for index, count, old in reversed(self.journal[:]):
            self.splice(index, index + count, old)
        self.journal.clear()
        self._high = 0

    def splice(self, first: int, last: int, new: list[Vma]) -> None:
        """Puts ``new`` in the place of the areas numbered ``first`` up to ``last``."""
        old = self._vmas[first:last]
        self._vmas[first:last] = new
        self._starts[first:last] = [new[0].start] if len(new) == 1 else [vma.start for vma in new]
        for vma in new:
            self.total += vma.end - vma.start
            if vma.file is not None:
                vma.file.references += 1
        for vma in old:
            self.total -= vma.end - vma.start
            if vma.file is not None:
                vma.file.references -= 1
                if vma.file.references == 0:
                    self.orphans.append(vma.file)
        if self.total > self.peak:
            self.peak = self.total
        self.journal.append((first, len(new), old))

    def replace(self, start: int, end: int, vma: Vma | None) -> None:
        """Lets a range hold ``vma`` (which covers it exactly), or nothing, whatever was there."""
        first = self._first(start)
        last = bisect_left(self._starts, end, first)
        if vma is not None:
            self._settle(first, last, start, end, [vma])
            return
        self._settle(first, last, start, end, [])
        if self._top < end:
            # The search hint must lie above the new gap, which begins or ends at a neighbour.
            following = self.next_from(start)
            self._top = following.start if following else self._high

    def change(self, start: int, end: int, change: Callable[[Vma], Vma]) -> None:
        """Changes the properties of whatever is mapped in a range."""
        first, last = self._first(start), bisect_left(self._starts, end)
        middle = [change(vma.part(max(start, vma.start), min(end, vma.end))) for vma in self._vmas[first:last]]
        self._settle(first, last, start, end, middle)

    def _settle(self, first: int, last: int, start: int, end: int, middle: list[Vma]) -> None:
        """Splices ``middle`` in for a range, keeps the rests of areas it cuts, joins what belongs together."""
        vmas = self._vmas
        if first < last:
            head, tail = vmas[first], vmas[last - 1]
            if head.start < start:
                middle.insert(0, head.part(head.start, start))
            if tail.end > end:
                middle.append(tail.part(end, tail.end))
        if not middle:
            self.splice(first, last, middle)
            return
        if first > 0 and middle[0].continues(vmas[first - 1]):
            first -= 1
            middle[0] = vmas[first].up_to(middle[0].end)
        if last < len(vmas) and vmas[last].continues(middle[-1]):
            middle[-1] = middle[-1].up_to(vmas[last].end)
            last += 1
        self.splice(first, last, _joined(middle) if len(middle) > 1 else middle)

    # Free room -----------------------------------------------------------------------------------

    def highest_gap(self, length: int, low: int, high: int) -> int | None:
        """Gives the highest address below ``high`` where ``length`` free bytes begin, none below ``low``."""
        vmas = self._vmas
        if high != self._high or length <= self._skipped or self._top >= high:
            self._high, self._top, self._skipped = high, high, 0
        ceiling = self._top
        index = bisect_left(self._starts, ceiling)
        top = min(ceiling, vmas[index].guarded_start) if index < len(vmas) else ceiling
        skipped = self._skipped
        while True:
            bottom = max(low, vmas[index - 1].end) if index else low
            if top - bottom >= length:
                self._top, self._skipped = top, skipped
                return top - length
            if bottom <= low:
                return None
            skipped = max(skipped, top - bottom)
            index -= 1
            top = min(vmas[index].guarded_start, high)

    def lowest_gap(self, length: int, low: int, high: int) -> int | None:
        """Gives the lowest address from ``low`` on where ``length`` free bytes begin, all below ``high``."""
        bottom = low
        for index in range(self._first(low), len(self._vmas)):
            vma = self._vmas[index]
            if min(vma.guarded_start, high) - bottom >= length:
                return bottom
            bottom = max(bottom, vma.end)
        return bottom if high - bottom >= length else None


def _joined(vmas: list[Vma]) -> list[Vma]:
    """Joins neighbours that are alike."""
    result = [vmas[0]]
    for vma in vmas[1:]:
        previous = result[-1]
        if vma.continues(previous):
            result[-1] = previous.up_to(vma.end)
        else:
            result.append(vma)
    return result
