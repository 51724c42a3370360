"""linux/mount.h and sys/mount.h: flags of mount(2) and umount2(2); statfs(2)'s structure and flags."""

from struct import Struct

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25
MS_MGC_VAL = 0xC0ED0000
MS_MGC_MSK = 0xFFFF0000

MNT_FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOSYMFOLLOW | MS_NOATIME | MS_NODIRATIME | MS_RELATIME
"""The bits that belong to one mount and not to the file system below it."""

MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

STATFS = Struct("<qqqqqqqiiqqq32x")
"""type, bsize, blocks, bfree, bavail, files, ffree, fsid (two words), namelen, frsize, flags."""
ST_VALID = 0x0020
ST_RELATIME = 4096
ST_NOSYMFOLLOW = 8192
