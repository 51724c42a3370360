"""How much memory a whole sandbox may use: what mmap(2), brk(2) and files in memory ask before they grow.

Linux's default, overcommitting, policy with the sandbox in the place of the machine: address space is given away
freely, except that one request is refused with ENOMEM (ENOSPC for files) when what it asks for would not fit into
what is unused *now*. Nobody is charged for memory before it is touched, so programs can together promise
themselves more than there is; when they then touch it, ``tasks/oom.py`` ends the largest.
Rejected: adding up all promises, as vm.overcommit_memory=2 does. fork(2) doubles them, and language runtimes
reserve gigabytes they never touch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from asyncsentry.errnos import ENOMEM

_PAGE_SIZE = 4096


class Holder(Protocol):
    """Something that keeps count of the pages it holds."""

    used: int


class MemoryAccount:
    """The limit of one sandbox and what is in use."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes."""
        self.measured = 0
        """Bytes in use at the last measurement, files apart."""

    def holders(self) -> Iterable[Holder]:
        """Gives the file systems in memory, which count their pages themselves."""
        return ()

    def measure(self) -> None:
        """Asks afresh what is in use."""

    @property
    def used(self) -> int:
        """Bytes in use, as far as known without asking the host."""
        return self.measured + sum(holder.used for holder in self.holders()) * _PAGE_SIZE

    def free_bytes(self) -> int:
        """Gives what is left, as far as known; measures again before it says nothing."""
        if self.used >= self.limit:
            self.measure()
        return max(0, self.limit - self.used)

    def check_mapping(self, size: int) -> None:
        """ENOMEM if a mapping of that size would not fit."""
        if self.used + size > self.limit:
            self.measure()
            if self.used + size > self.limit:
                raise ENOMEM("more memory than the sandbox has left")
