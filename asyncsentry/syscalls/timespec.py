"""Reading and writing struct timespec, timeval and their pairs, with Linux's checks."""

from __future__ import annotations

from struct import Struct

from asyncsentry.abi.time_h import ITIMERVAL, TIMESPEC
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import EINVAL
from asyncsentry.tasks.thread import Thread
from asyncsentry.tasks.timebase import TIME_MAX_NS

NS_PER_US = 1000
US_PER_SECOND = 1_000_000


def read_timespec(thread: Thread, address: int) -> int:
    """Reads a time in nanoseconds; EINVAL if negative or not normal. Later than the end of time is the end of time."""
    seconds, nanoseconds = thread.memory.read_struct(address, TIMESPEC)
    return _nanoseconds(seconds, nanoseconds, 1)


def write_timespec(thread: Thread, address: int, time_ns: int) -> None:
    """Writes a time."""
    thread.memory.write_struct(address, TIMESPEC, *divmod(time_ns, NS_PER_SECOND))


def read_interval(thread: Thread, address: int, layout: Struct) -> tuple[int, int]:
    """Reads a struct itimerspec or itimerval: gives (interval, value) in nanoseconds."""
    unit_ns = NS_PER_US if layout is ITIMERVAL else 1
    words = thread.memory.read_struct(address, layout)
    return _nanoseconds(words[0], words[1], unit_ns), _nanoseconds(words[2], words[3], unit_ns)


def write_interval(thread: Thread, address: int, layout: Struct, interval_ns: int, value_ns: int) -> None:
    """Writes a struct itimerspec or itimerval; a value is never rounded down to 0, which means "not set"."""
    unit_ns = NS_PER_US if layout is ITIMERVAL else 1
    units = NS_PER_SECOND // unit_ns
    value = -(-value_ns // unit_ns)
    thread.memory.write_struct(address, layout, *divmod(interval_ns // unit_ns, units), *divmod(value, units))


def _nanoseconds(seconds: int, fraction: int, unit_ns: int) -> int:
    if seconds < 0 or not 0 <= fraction < NS_PER_SECOND // unit_ns:
        raise EINVAL(f"time of {seconds} s and {fraction} units of {unit_ns} ns")
    return min(seconds * NS_PER_SECOND + fraction * unit_ns, TIME_MAX_NS)
