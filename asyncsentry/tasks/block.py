"""The one place where a guest thread waits for an event.

A wait ends in one of three ways: the event came (return), a signal is to be delivered
(``Interrupted``) or the deadline passed (``TimedOut``). The thread joins its queues before its first
suspension, so no wake-up is lost between a failed try and the wait. Cancellation passes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asyncsentry.errnos import Interrupted, TimedOut
from asyncsentry.gate import Gate
from asyncsentry.waiter import Waiter, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel

_EVENT, _INTERRUPTED, _TIMED_OUT = range(3)


class Blocker:
    """The waiting half of a guest thread."""

    __slots__ = ("_ending", "_gate", "_kernel", "_waiting", "interrupt_pending")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._gate = Gate(asyncio.get_running_loop())
        self._waiting = False
        self._ending = _EVENT
        self.interrupt_pending = False
        """Whether there is a signal to deliver or a stop to take part in; kept by ``tasks/signals``."""

    @property
    def is_blocked(self) -> bool:
        """Whether the thread waits for an event (state S in /proc)."""
        return self._waiting

    async def wait(self, queues: Sequence[tuple[WaitQueue, int]], deadline_ns: int | None,
                   interruptible: bool = True, exclusive: bool = False) -> None:
        """Waits for any of ``queues`` to report any bit of its mask; may return spuriously.

        ``exclusive`` means that of several who wait so, an event wakes only one: who is woken must, when done,
        notify the queue again if the event still holds.
        """
        if interruptible and self.interrupt_pending:
            raise Interrupted
        waiters = [(queue, Waiter(self._on_event, mask, exclusive)) for queue, mask in queues]
        self._waiting = True  # before joining: the queue of a host socket may tell at once what came up by then
        self._ending = _EVENT
        for queue, waiter in waiters:
            queue.add(waiter)
        timer = None
        if deadline_ns is not None:
            timer = self._kernel.clock.call_at(deadline_ns, self._on_deadline)
        try:
            await self._gate
        finally:
            self._waiting = False
            for queue, waiter in waiters:
                queue.remove(waiter)
            if timer is not None:
                timer.cancel()
        if self._ending == _TIMED_OUT:
            raise TimedOut
        if self._ending == _INTERRUPTED and interruptible:
            raise Interrupted

    async def yield_now(self) -> None:
        """Lets every other thread that is ready run first, sched_yield(2)."""
        self._kernel.run_queue.add(self._gate)
        await self._gate

    def interrupt(self) -> None:
        """Ends a wait because of a signal; a no-op if the thread does not wait."""
        self._end(_INTERRUPTED)

    def _on_event(self, mask: int) -> bool:
        return self._end(_EVENT)

    def _on_deadline(self) -> None:
        self._end(_TIMED_OUT)

    def _end(self, ending: int) -> bool:
        """Ends a wait; ``False`` if there is none: the first cause ends it, and later ones change nothing."""
        if not self._waiting:
            return False
        self._waiting = False
        self._ending = ending
        self._kernel.run_queue.add(self._gate)
        return True
