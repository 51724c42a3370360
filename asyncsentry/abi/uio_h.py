"""uio.h, fs.h and splice(2): vectored transfers, their per-call flags, and limits.h's PIPE_BUF."""

from struct import Struct

IOV_MAX = 1024
IOVEC = Struct("<QQ")
"""``struct iovec``: base, length."""
MAX_RW_COUNT = 0x7FFFF000
"""Most bytes one call moves, on any file."""
PIPE_BUF = 4096
"""Writes to a pipe up to this size are never mixed with others."""

RWF_HIPRI = 0x01
RWF_DSYNC = 0x02
RWF_SYNC = 0x04
RWF_NOWAIT = 0x08
RWF_APPEND = 0x10
RWF_NOAPPEND = 0x20
RWF_SUPPORTED = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND

SPLICE_F_MOVE = 1
SPLICE_F_NONBLOCK = 2
SPLICE_F_MORE = 4
SPLICE_F_GIFT = 8
SPLICE_F_ALL = 15

POSIX_FADV_MAX = 5
"""POSIX_FADV_NOREUSE, the highest advice."""
