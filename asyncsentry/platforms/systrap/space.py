"""A guest address space on systrap: a host process, its chunks of slots, and the threads in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncsentry.platforms.hostmemory import HostMemory
from asyncsentry.platforms.systrap.slots import SLOTS_PER_CHUNK, Chunk

if TYPE_CHECKING:
    from asyncsentry.platforms.systrap.context import SystrapContext


class SystrapSpace(HostMemory):
    """One guest address space."""

    def __init__(self, buffer: Any, chunk: Chunk, vdso: tuple[int, int]) -> None:
        super().__init__(buffer, vdso)
        self.chunks = [chunk]
        self.contexts: set[SystrapContext] = set()
        """Threads that live in it."""
        self.pidfd = -1
        self.is_dead = False
        self.died = asyncio.get_running_loop().create_future()
        self.free_slots = list(range(chunk.first + SLOTS_PER_CHUNK - 1, chunk.first, -1))
        self.leaving: list[tuple[int, int]] = []
        """Slots of threads told to exit, with their tids: free once the host says the thread is gone."""
