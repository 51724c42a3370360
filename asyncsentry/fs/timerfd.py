"""timerfd_create(2): timers that are read. See Linux's fs/timerfd.c.

As there, a periodic timer that has fired is not set again until somebody reads it or asks for its time, and
the expirations missed meanwhile are worked out then: a timer nobody reads costs one wake-up.
"""

from __future__ import annotations

from asyncsentry import errnos
from asyncsentry.abi.timerfd_h import TFD_NONBLOCK
from asyncsentry.clock import NS_PER_SECOND, Clock, Timer
from asyncsentry.fs.anon import AnonFile
from asyncsentry.fs.file import O_RDWR
from asyncsentry.fs.inode import Inode
from asyncsentry.waiter import READABLE


class TimerFile(AnonFile):
    """A timer on one of the system-wide clocks."""

    def __init__(self, inode: Inode, clock: Clock, clock_id: int, flags: int) -> None:
        super().__init__(inode, O_RDWR | flags & TFD_NONBLOCK)
        self.clock_id = clock_id
        self._clock = clock
        self._timer: Timer | None = None
        self._expires_ns: int | None = None
        """When it fires (or fired last) on its own clock; ``None`` while disarmed."""
        self._interval_ns = 0
        self._ticks = 0
        self._has_fired = False
        self._is_absolute = False

    def describe(self) -> str:
        """Gives ``anon_inode:[timerfd]``."""
        return "anon_inode:[timerfd]"

    def fdinfo(self) -> str:
        """Adds clock and times to ``/proc/self/fdinfo``."""
        value, interval = (divmod(time_ns, NS_PER_SECOND) for time_ns in self.get_time())
        return (
            f"clockid: {self.clock_id}\nticks: {self._ticks}\nsettime flags: {int(self._is_absolute):02o}\n"
            f"it_value: ({value[0]}, {value[1]})\nit_interval: ({interval[0]}, {interval[1]})\n"
        )

    def set_time(self, value_ns: int, interval_ns: int, absolute: bool) -> None:
        """Arms it, or disarms it with value 0; unread expirations are forgotten."""
        self._disarm()
        self._ticks = 0
        self._has_fired = False
        self._interval_ns = interval_ns
        self._is_absolute = absolute
        if value_ns:
            self._arm(value_ns if absolute else self._clock.now_ns(self.clock_id) + value_ns)

    def get_time(self) -> tuple[int, int]:
        """Gives (nanoseconds until it fires next, interval); the first is 0 while disarmed."""
        self._look_at_clock()
        self._catch_up()
        if self._expires_ns is None or self._has_fired:
            return 0, self._interval_ns
        return max(1, self._expires_ns - self._clock.now_ns(self.clock_id)), self._interval_ns

    def _arm(self, expires_ns: int) -> None:
        self._expires_ns = expires_ns
        delay_ns = expires_ns - self._clock.now_ns(self.clock_id)
        if delay_ns <= 0:
            self._expire()
        else:
            self._timer = self._clock.call_at(self._clock.now_ns() + delay_ns, self._expire)

    def _disarm(self) -> None:
        self._expires_ns = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        assert self._expires_ns is not None
        if self._clock.now_ns(self.clock_id) < self._expires_ns:  # the clock was set back meanwhile
            self._arm(self._expires_ns)
            return
        self._timer = None
        self._has_fired = True
        self._ticks += 1
        self.queue.notify(READABLE)

    def _look_at_clock(self) -> None:
        """Expires now if it is time, though the event loop has not come to call it yet."""
        if self._timer is None or self._expires_ns is None:
            return
        if self._clock.now_ns(self.clock_id) >= self._expires_ns:
            self._timer.cancel()
            self._expire()

    def _catch_up(self) -> None:
        """Counts what a periodic timer missed since it fired, and sets it again."""
        if not self._has_fired or not self._interval_ns or self._expires_ns is None:
            return
        self._has_fired = False
        missed = (self._clock.now_ns(self.clock_id) - self._expires_ns) // self._interval_ns
        self._ticks += missed
        self._arm(self._expires_ns + (missed + 1) * self._interval_ns)

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Gives how often it expired since the last read, 8 bytes; EINVAL for a smaller buffer."""
        if count < 8:
            raise errnos.EINVAL("less than 8 bytes")
        self._look_at_clock()
        if not self._ticks:
            raise errnos.WouldBlock
        self._catch_up()
        ticks, self._ticks = self._ticks, 0
        return ticks.to_bytes(8, "little")

    def unread(self, data: bytes) -> None:
        """Loses it, as Linux does."""

    def poll(self) -> int:
        """Is readable once it has expired."""
        self._look_at_clock()
        return READABLE if self._ticks else 0

    async def release(self) -> None:
        """Stops it."""
        self._disarm()
