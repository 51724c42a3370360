"""sys/stat.h and linux/stat.h: mode bits, ``struct stat`` and ``struct statx`` of x86-64."""

from struct import Struct

S_IFMT = 0o170000
S_IFSOCK = 0o140000
S_IFLNK = 0o120000
S_IFREG = 0o100000
S_IFBLK = 0o060000
S_IFDIR = 0o040000
S_IFCHR = 0o020000
S_IFIFO = 0o010000
S_ISUID = 0o4000
S_ISGID = 0o2000
S_ISVTX = 0o1000
S_IXGRP = 0o010
PERMISSION_BITS = 0o7777

STAT = Struct("<QQQIIIIQqqqqqqqqq24x")
"""dev, ino, nlink, mode, uid, gid, pad, rdev, size, blksize, blocks, then atime, mtime, ctime as (s, ns)."""

STATX = Struct("<IIQIIIHHQQQQ" + "qII" * 4 + "IIIIQ" + "104x")
"""mask, blksize, attributes, nlink, uid, gid, mode, pad, ino, size, blocks, attributes_mask,
four of (sec, nsec, pad): atime, btime, ctime, mtime; rdev major, minor, dev major, minor, mnt_id, and
room for the fields of newer kernels."""

STATX_TYPE = 0x001
STATX_MODE = 0x002
STATX_NLINK = 0x004
STATX_UID = 0x008
STATX_GID = 0x010
STATX_ATIME = 0x020
STATX_MTIME = 0x040
STATX_CTIME = 0x080
STATX_INO = 0x100
STATX_SIZE = 0x200
STATX_BLOCKS = 0x400
STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX_RESERVED = 0x80000000
STATX_ATTR_MOUNT_ROOT = 0x2000

UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
