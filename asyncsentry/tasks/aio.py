"""Contexts of asynchronous input and output: what was submitted, what has completed. See io_setup(2), io_submit(2).

A context is named by the address of a page it maps into the guest, as in Linux, where that is a ring of events which
libaio may read by itself. This page says that it is no such ring (its magic number is 0), so libaio calls
io_getevents(2). Files are read and written while they are submitted, as Linux does without O_DIRECT.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from asyncsentry.errnos import EAGAIN, EINVAL
from asyncsentry.waiter import READABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel
    from asyncsentry.memory.manager import MemoryManager

_SIZE_MAX = 0x10000000 // 32 // 2  # Linux doubles the number and has 32 bytes for each event


class Completion(NamedTuple):
    """One finished operation, ``struct io_event``."""

    data: int
    """What the program put into the control block."""
    control_block: int
    """Its address."""
    result: int


class AioContext:
    """One context."""

    __slots__ = ("completions", "is_destroyed", "queue", "running", "size", "slots")

    def __init__(self, size: int) -> None:
        self.size = size
        """How many operations the program asked for."""
        self.slots = max(size, 4 * (os.cpu_count() or 1)) * 2
        """How many may be under way or not yet fetched: rounded up as Linux does, on which programs rely."""
        self.completions: deque[Completion] = deque()
        self.queue = WaitQueue()
        """Notified when an operation has completed, or the context is gone."""
        self.running = 0
        self.is_destroyed = False

    def begin(self) -> None:
        """Takes a slot for an operation; EAGAIN if there is none."""
        if self.running + len(self.completions) >= self.slots:
            raise EAGAIN("as many operations as the context holds")
        self.running += 1

    def abandon(self) -> None:
        """Gives a slot back: nothing was done."""
        self.running -= 1

    def complete(self, completion: Completion) -> None:
        """Ends an operation."""
        self.running -= 1
        self.completions.append(completion)
        self.queue.notify(READABLE)

    def destroy(self) -> None:
        """Lets everybody who waits for it go."""
        self.is_destroyed = True
        self.queue.notify(READABLE)


def make_context(kernel: Kernel, size: int) -> AioContext:
    """Makes a context; EINVAL for an absurd size, EAGAIN if the sandbox has too many operations with it."""
    if size > _SIZE_MAX:
        raise EINVAL(f"{size} operations")
    in_use = sum(
        context.size for memory in {thread.memory for thread in kernel.threads.values()}
        for context in memory.aio_contexts.values()
    )  # fmt: skip
    if in_use + size > kernel.sysctls.integer("fs.aio-max-nr"):
        raise EAGAIN("more operations than fs.aio-max-nr")
    return AioContext(size)


def find_context(memory: MemoryManager, address: int) -> AioContext:
    """Finds a context of an address space; EINVAL if there is none."""
    context = memory.aio_contexts.get(address)
    if not isinstance(context, AioContext):
        raise EINVAL(f"no context at {address:#x}")
    return context
