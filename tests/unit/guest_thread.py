"""A guest thread on the fake platform, for tests that call syscall handlers directly."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from asyncsentry.clock import VirtualClock
from asyncsentry.fs.dentry import Dentry, Location
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.kernel import Kernel
from asyncsentry.memory.manager import MemoryManager
from asyncsentry.platforms.fake import ARENA, FakePlatform
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.fscontext import FsContext
from asyncsentry.tasks.process import Process, ProcessGroup, Session
from asyncsentry.tasks.thread import Thread

Result = TypeVar("Result")
A = ARENA
"""Where a test's guest memory begins; 64 KiB."""


class Guest:
    """One process with one thread, and helpers to make calls on it."""

    def __init__(self, thread: Thread, clock: VirtualClock) -> None:
        self.thread = thread
        self.clock = clock
        self.memory = thread.memory
        self.kernel = thread.kernel

    def add_thread(self) -> Guest:
        """Gives a second thread of the same process."""
        first = self.thread
        kernel = first.kernel
        thread = Thread(kernel, first.process, kernel.allocate_pid(), first.context, first.memory, first.fds, first.fs,
                        first.credentials, "second")  # fmt: skip
        first.process.threads[thread.tid] = thread
        return Guest(thread, self.clock)

    async def start(self, call: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Starts a call and lets it come to where it blocks."""
        task = asyncio.create_task(call)
        await settle()
        return task


def awaited(handler: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Gives a handler that may answer without a coroutine as one that always needs one."""

    async def call(*arguments: Any) -> Any:
        answer = handler(*arguments)
        return await answer if inspect.isawaitable(answer) else answer

    return call


async def settle() -> None:
    """Lets everything that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def make_guest() -> Guest:
    """Makes a kernel with one process."""
    clock = VirtualClock()
    platform = FakePlatform()
    kernel = Kernel(platform, clock)
    context = await platform.new_address_space()
    process = Process(kernel, 100, None, ProcessGroup(1, Session(1)))
    nowhere: Any = Location(None, Dentry("", None, None))  # type: ignore[arg-type]
    thread = Thread(kernel, process, process.pid, context, MemoryManager(context.space), FdTable(1024),
                    FsContext(nowhere, nowhere), Credentials(), "first")  # fmt: skip
    process.threads[thread.tid] = thread
    return Guest(thread, clock)
