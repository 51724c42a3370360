"""Where things go in a fresh address space: stack, mappings, position-independent programs, heap.

As Linux lays it out (arch/x86/mm/mmap.c, fs/binfmt_elf.c), below the part that belongs to the platform.
"""

from __future__ import annotations

from typing import NamedTuple

from asyncsentry.clock import RandomSource
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX, PAGE_SIZE

STACK_EXTENT_MAX = 8 << 20
"""How much of a stack is mapped from the start; the rest of a larger RLIMIT_STACK is mapped as it grows."""
STACK_EXTENT_MIN = 256 << 10
_STACK_RANDOM_PAGES = 1 << 22
_MMAP_RANDOM_PAGES = 1 << 28
_BRK_RANDOM_PAGES = 1 << 13
_GAP_MIN, _GAP_MAX = 128 << 20, GUEST_ADDRESS_MAX // 6 * 5
PROGRAM_BASE = GUEST_ADDRESS_MAX // 3 * 2 // PAGE_SIZE * PAGE_SIZE
"""Where a position-independent program with an interpreter goes, Linux's ELF_ET_DYN_BASE."""


def page_up(value: int) -> int:
    """Rounds up to whole pages."""
    return (value + PAGE_SIZE - 1) & -PAGE_SIZE


class Layout(NamedTuple):
    """The addresses chosen for one program."""

    stack_top: int
    mmap_base: int
    """Mappings are placed from here downwards."""
    program_base: int
    brk_offset: int
    """How far behind the program's data the heap begins."""
    stack_slack: int
    """Bytes left unused at the top of the stack, so that its pointer is unpredictable within a page too."""


def choose_layout(random: RandomSource, stack_limit: int, randomize: bool = True) -> Layout:
    """Chooses addresses for a program; ``stack_limit`` is RLIMIT_STACK."""
    stack_random = random.below(_STACK_RANDOM_PAGES) * PAGE_SIZE if randomize else 0
    gap = max(_GAP_MIN, min(_GAP_MAX, stack_limit + (_STACK_RANDOM_PAGES * PAGE_SIZE if randomize else 0)))
    mmap_random = random.below(_MMAP_RANDOM_PAGES) * PAGE_SIZE if randomize else 0
    return Layout(
        stack_top=GUEST_ADDRESS_MAX - PAGE_SIZE - stack_random,
        mmap_base=page_up(GUEST_ADDRESS_MAX - gap - mmap_random),
        program_base=PROGRAM_BASE + (random.below(_MMAP_RANDOM_PAGES) * PAGE_SIZE if randomize else 0),
        brk_offset=random.below(_BRK_RANDOM_PAGES) * PAGE_SIZE if randomize else 0,
        stack_slack=random.below(8192) & ~15 if randomize else 0,
    )
