"""Sleeping until a time: nanosleep(2), clock_nanosleep(2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncsentry.errnos import Interrupted, TimedOut
from asyncsentry.tasks.timebase import Alarm, TimeBase
from asyncsentry.waiter import POLLIN, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread


class Sleep:
    """One sleep, which restart_syscall(2) may go on with after a signal."""

    __slots__ = ("_base", "_deadline_ns", "_thread", "_write_remaining")

    def __init__(self, thread: Thread, base: TimeBase, deadline_ns: int,
                 write_remaining: Callable[[int], None] | None = None) -> None:
        self._thread = thread
        self._base = base
        self._deadline_ns = deadline_ns
        self._write_remaining = write_remaining

    async def run(self) -> int:
        """Sleeps; if interrupted, tells the time that was left and lets itself be gone on with."""
        try:
            if self._base.is_cpu:
                await self._run_on_cpu_time()
            else:
                await self._run_on_clock()
        except Interrupted:
            if self._write_remaining is not None:
                self._write_remaining(max(0, self._deadline_ns - self._base.now_ns()))
            self._thread.restart = self.run
            raise
        return 0

    async def _run_on_clock(self) -> None:
        clock = self._thread.kernel.clock
        while (remaining_ns := self._deadline_ns - self._base.now_ns()) > 0:
            try:
                await self._thread.block_any((), clock.now_ns() + remaining_ns)
            except TimedOut:
                continue

    async def _run_on_cpu_time(self) -> None:
        queue = WaitQueue()
        alarm = Alarm(self._thread.kernel, self._base, _Notify(queue).run)
        try:
            while self._base.now_ns() < self._deadline_ns:
                alarm.arm(self._deadline_ns)
                await self._thread.block(queue, POLLIN)
        finally:
            alarm.disarm()


class _Notify:
    """Wakes a queue when an alarm goes off."""

    __slots__ = ("_queue",)

    def __init__(self, queue: WaitQueue) -> None:
        self._queue = queue

    def run(self) -> None:
        self._queue.notify(POLLIN)
