"""Layout of <sys/utsname.h>."""

FIELD_SIZE = 65
"""Bytes of each of the six fields of struct new_utsname, NUL included."""
NAME_MAX = 64
"""__NEW_UTS_LEN: the longest host or domain name."""
