"""A kernel whose guest programs are coroutines, run by the real run loop: for tests of tasks' lives."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import asyncsentry.syscalls.futex
import asyncsentry.syscalls.identity
import asyncsentry.syscalls.kill
import asyncsentry.syscalls.limits
import asyncsentry.syscalls.numa
import asyncsentry.syscalls.processes
import asyncsentry.syscalls.scheduling
import asyncsentry.syscalls.seccomp
import asyncsentry.syscalls.sharing
import asyncsentry.syscalls.signals
import asyncsentry.syscalls.system
from asyncsentry.clock import VirtualClock
from asyncsentry.fs.dentry import Dentry, Location
from asyncsentry.fs.fdtable import FdTable
from asyncsentry.fs.hostfacts import HostFacts
from asyncsentry.kernel import Kernel
from asyncsentry.memory.manager import MemoryManager
from asyncsentry.platforms.fake import ARENA, FakeContext, FakePlatform, Program
from asyncsentry.syscalls.dispatch import Dispatch
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.fscontext import FsContext
from asyncsentry.tasks.process import Process, ProcessGroup, Session
from asyncsentry.tasks.run import start
from asyncsentry.tasks.thread import Thread

A = ARENA


class Sandbox:
    """``async with Sandbox() as sandbox: status = await sandbox.run(program)``."""

    async def __aenter__(self) -> Sandbox:
        assert asyncsentry.syscalls
        self.clock = VirtualClock()
        self._has_init = False
        self.platform = FakePlatform()
        self.kernel = Kernel(self.platform, self.clock)  # type: ignore[arg-type]
        self.kernel.dispatch = Dispatch()
        self.kernel.host_facts = HostFacts(cpu_count=2)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        traceback: TracebackType | None) -> None:
        tasks = [thread.task for thread in self.kernel.threads.values() if thread.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.platform.close()
        if kind is None and self.kernel.failure.done():
            self.kernel.failure.result()

    async def spawn(self, program: Program, credentials: Credentials | None = None) -> Process:
        """Starts a process of its own session; the first has pid 1."""
        kernel = self.kernel
        context: FakeContext = await self.platform.new_address_space()
        context.program = program
        pid = kernel.allocate_pid() if self._has_init else 1
        self._has_init = True
        process = Process(kernel, pid, None, ProcessGroup(pid, Session(pid)))
        nowhere: Any = Location(None, Dentry("", None, None))  # type: ignore[arg-type]
        thread = Thread(kernel, process, pid, context, MemoryManager(context.space), FdTable(1024),  # type: ignore
                        FsContext(nowhere, nowhere), credentials or Credentials(), "program")
        process.threads[pid] = kernel.threads[pid] = thread
        kernel.processes[pid] = process
        start(thread)
        return process

    async def run(self, program: Program, credentials: Credentials | None = None) -> int:
        """Runs a process to its end and gives its wait status; fails rather than hang."""
        process = await self.spawn(program, credentials)
        await self.until(lambda: process.is_zombie)
        assert process.exit_status is not None
        return process.exit_status

    async def until(self, condition: Any) -> None:
        """Lets guests run until a condition holds, moving the clock only when nothing else can happen."""
        for _ in range(400):
            if condition() or self.kernel.failure.done():
                break
            await asyncio.sleep(0)
        if self.kernel.failure.done():
            self.kernel.failure.result()
        assert condition(), "the guests hang"
