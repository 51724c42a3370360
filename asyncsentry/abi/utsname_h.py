"""Layout of <sys/utsname.h>."""

FIELD_SIZE = 65
"""Bytes of each of the six fields of struct new_utsname, NUL included."""
NAME_MAX = 64
"""__NEW_UTS_LEN: the longest host or domain name."""

SYSNAME = "Linux"
"""What uname(2) and /proc say this kernel is."""
RELEASE = "6.12.0-asyncsentry"
VERSION = "#1 SMP PREEMPT_DYNAMIC"
MACHINE = "x86_64"
