"""The one source of time and the one source of random bytes in a sandbox.

Everything that reads a clock or sets a timer goes through a :class:`Clock`, so that a test (or a
virtual-time run) can put another in its place. All times are integers in nanoseconds.
See clock_gettime(2).
"""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from collections.abc import Callable
from typing import Protocol

CLOCK_REALTIME = 0
CLOCK_MONOTONIC = 1
CLOCK_PROCESS_CPUTIME_ID = 2
CLOCK_THREAD_CPUTIME_ID = 3
CLOCK_MONOTONIC_RAW = 4
CLOCK_REALTIME_COARSE = 5
CLOCK_MONOTONIC_COARSE = 6
CLOCK_BOOTTIME = 7
CLOCK_REALTIME_ALARM = 8
CLOCK_BOOTTIME_ALARM = 9
CLOCK_TAI = 11

NS_PER_SECOND = 1_000_000_000


class Timer(Protocol):
    """A pending callback."""

    def cancel(self) -> None:
        """Forgets the callback; harmless after it ran."""


class Clock(Protocol):
    """Reads time and runs callbacks at a time."""

    def now_ns(self, clock_id: int = CLOCK_MONOTONIC) -> int:
        """Gives the time on one of the system-wide clocks; ValueError for an unknown one."""

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Runs ``callback`` once CLOCK_MONOTONIC has reached ``deadline_ns``, never earlier."""


class _LoopTimer:
    """A timer on the event loop that never fires before its nanosecond deadline."""

    __slots__ = ("_callback", "_deadline_ns", "_handle")

    def __init__(self, deadline_ns: int, callback: Callable[[], None]) -> None:
        self._deadline_ns = deadline_ns
        self._callback: Callable[[], None] | None = callback
        self._handle: asyncio.TimerHandle | None = None
        self._arm()

    def _arm(self) -> None:
        # uvloop's timers have millisecond grain and may run early by a fraction of one: ask again.
        delay_ns = max(0, self._deadline_ns - time.monotonic_ns())
        self._handle = asyncio.get_running_loop().call_later(delay_ns / NS_PER_SECOND, self._run)

    def _run(self) -> None:
        if self._callback is None:
            return
        if time.monotonic_ns() < self._deadline_ns:
            self._arm()
            return
        callback, self._callback = self._callback, None
        callback()

    def cancel(self) -> None:
        """Forgets the callback; harmless after it ran."""
        self._callback = None
        if self._handle is not None:
            self._handle.cancel()


class HostClock:
    """The host's own clocks, and timers on the running event loop."""

    def now_ns(self, clock_id: int = CLOCK_MONOTONIC) -> int:
        """Gives the host's time on ``clock_id``."""
        if clock_id == CLOCK_MONOTONIC:
            return time.monotonic_ns()
        if clock_id in (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM):
            clock_id = CLOCK_REALTIME if clock_id == CLOCK_REALTIME_ALARM else CLOCK_BOOTTIME
        if not 0 <= clock_id <= CLOCK_TAI or clock_id in (CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID):
            raise ValueError(f"clock {clock_id} is not system-wide")
        return time.clock_gettime_ns(clock_id)

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Runs ``callback`` on the loop once the deadline has passed."""
        return _LoopTimer(deadline_ns, callback)


class _VirtualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """A clock that stands still until :meth:`advance` is called: tests decide what time it is."""

    def __init__(self, realtime_ns: int = 1_700_000_000 * NS_PER_SECOND, monotonic_ns: int = NS_PER_SECOND) -> None:
        self._offset_ns = realtime_ns - monotonic_ns
        self._now_ns = monotonic_ns
        self._timers: list[tuple[int, int, _VirtualTimer]] = []
        self._sequence = 0

    def now_ns(self, clock_id: int = CLOCK_MONOTONIC) -> int:
        """Gives virtual time; all monotonic clocks agree."""
        if clock_id in (CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_TAI, CLOCK_REALTIME_ALARM):
            return self._now_ns + self._offset_ns
        return self._now_ns

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Queues ``callback``; it runs inside :meth:`advance`."""
        timer = _VirtualTimer(callback)
        self._sequence += 1
        heapq.heappush(self._timers, (deadline_ns, self._sequence, timer))
        return timer

    def advance(self, duration_ns: int) -> None:
        """Moves time on, running each callback at its own moment, in order."""
        end_ns = self._now_ns + duration_ns
        while self._timers and self._timers[0][0] <= end_ns:
            deadline_ns, _, timer = heapq.heappop(self._timers)
            self._now_ns = max(self._now_ns, deadline_ns)
            if timer.callback is not None:
                timer.callback()
        self._now_ns = end_ns


class RandomSource:
    """The host's random bytes; a test may subclass it to be repeatable."""

    def bytes(self, count: int) -> bytes:
        """Gives ``count`` random bytes."""
        return os.urandom(count)

    def below(self, limit: int) -> int:
        """Gives an integer in ``range(limit)``."""
        return int.from_bytes(self.bytes(8), "little") % limit
