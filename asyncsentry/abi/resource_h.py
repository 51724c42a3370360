"""Constants and layouts of <sys/resource.h> and <asm-generic/resource.h>."""

import struct

RLIM_INFINITY = (1 << 64) - 1

RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC, RLIMIT_NOFILE = range(8)
RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_LOCKS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_NICE = range(8, 14)
RLIMIT_RTPRIO, RLIMIT_RTTIME = range(14, 16)
RLIM_NLIMITS = 16

RLIMIT = struct.Struct("<QQ")
"""struct rlimit64: soft, hard."""

RUSAGE_SELF = 0
RUSAGE_CHILDREN = -1
RUSAGE_BOTH = -2
RUSAGE_THREAD = 1

RUSAGE = struct.Struct("<18q")
"""struct rusage: utime (s, µs), stime (s, µs), maxrss in KiB, then thirteen more longs from ixrss to nivcsw."""

PRIO_PROCESS, PRIO_PGRP, PRIO_USER = range(3)
PRIO_MIN, PRIO_MAX = -20, 19

IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP, IOPRIO_WHO_USER = range(1, 4)
IOPRIO_CLASS_SHIFT = 13
IOPRIO_CLASS_NONE, IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE = range(4)
IOPRIO_NR_LEVELS = 8
