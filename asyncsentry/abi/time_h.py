"""Clocks and timers: linux/time.h, linux/timex.h, linux/times.h."""

from __future__ import annotations

from struct import Struct

TIMER_ABSTIME = 1
ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF = range(3)

CPUCLOCK_PROF, CPUCLOCK_VIRT, CPUCLOCK_SCHED = range(3)
CPUCLOCK_PERTHREAD_MASK = 4
CPUCLOCK_CLOCK_MASK = 3

USER_HZ = 100
"""Ticks per second of times(2) and /proc/PID/stat."""

TIMESPEC = Struct("<qq")
ITIMERSPEC = Struct("<qqqq")
TIMEVAL = Struct("<qq")
ITIMERVAL = Struct("<qqqq")
TIMEZONE = Struct("<ii")
TMS = Struct("<qqqq")

TIMEX = Struct("<I4xqqqqi4xqqq qqqqq i4x qqqq q i44x")
"""struct timex: modes, offset, freq, maxerror, esterror, status, constant, precision, tolerance, time (2 words),
tick, ppsfreq, jitter, shift, stabil, jitcnt, calcnt, errcnt, stbcnt, tai."""
STA_UNSYNC = 0x0040
STA_NANO = 0x2000
ADJ_NANO = 0x2000
ADJ_MICRO = 0x1000
ADJ_OFFSET_SINGLESHOT = 0x8001
ADJ_OFFSET_SS_READ = 0xA001
TIME_OK = 0
TIME_ERROR = 5
