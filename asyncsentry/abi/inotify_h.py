"""inotify.h: flags and layout of inotify(7); the events a file system reports are in ``fs/notify.py``."""

from struct import Struct

IN_NONBLOCK = 0o4000
IN_CLOEXEC = 0o2000000

IN_ALL_EVENTS = 0xFFF
IN_DELETE_SELF = 0x400
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000
IN_EXCL_UNLINK = 0x04000000
IN_MASK_CREATE = 0x10000000
IN_MASK_ADD = 0x20000000
IN_ISDIR = 0x40000000
IN_ONESHOT = 0x80000000
INOTIFY_EVENT = Struct("<iIII")
"""``struct inotify_event`` without its name: wd, mask, cookie, len."""
MAX_QUEUED_EVENTS = 16384
MAX_USER_INSTANCES = 128
MAX_USER_WATCHES = 65536
