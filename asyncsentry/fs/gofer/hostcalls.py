"""The host calls the gofer needs that Python's os module lacks: openat2, statx, renameat2, statfs, syncfs.

See openat2(2), statx(2), rename(2), statfs(2), sync(2).
"""

from __future__ import annotations

import ctypes
import os
from struct import Struct

from asyncsentry.fs.gofer.protocol import ATTRIBUTES, clamp_time

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_statx = _libc.statx
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_renameat2 = _libc.renameat2
_renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

_NR_OPENAT2 = 437
_OPEN_HOW = Struct("=QQQ")
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_HOW_PATH = _OPEN_HOW.pack(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0,
                           _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
_EAGAIN_TRIES = 64

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_STATX_WANTED = 0x7FF | 0x800  # basic fields and birth time
_STATX = Struct("=IIQIIIHxxQQQQ" + "qIi" * 4 + "IIII")
_STATX_ATTR_MOUNT_ROOT = 0x2000
_F_TYPE = Struct("=q")
_buffer = ctypes.create_string_buffer(256)


def _raise_errno() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def open_beneath(directory_fd: int, path: bytes) -> int:
    """Opens ``path`` below a directory with O_PATH; no component may be a link, but the last may lead nowhere.

    A link as last component is opened itself. EAGAIN means that something was renamed meanwhile.
    """
    for _ in range(_EAGAIN_TRIES):
        fd: int = _syscall(_NR_OPENAT2, directory_fd, path, _HOW_PATH, len(_HOW_PATH))
        if fd >= 0:
            return fd
        if ctypes.get_errno() != 11:
            break
    _raise_errno()
    return -1


def packed_attributes(fd: int, name: bytes = b"") -> bytes:
    """Gives the attributes of ``fd``, or of a name in it, as the protocol's ATTRIBUTES."""
    flags = _AT_SYMLINK_NOFOLLOW | (0 if name else _AT_EMPTY_PATH)
    if _statx(fd, name, flags, _STATX_WANTED, _buffer):
        _raise_errno()
    (_, blksize, _, nlink, uid, gid, mode, ino, size, blocks, _, a_s, a_ns, _, b_s, b_ns, _, c_s, c_ns, _, m_s, m_ns, _,
     rdev_major, rdev_minor, dev_major, dev_minor) = _STATX.unpack_from(_buffer)  # fmt: skip
    return ATTRIBUTES.pack(
        mode, nlink, uid, gid, os.makedev(dev_major, dev_minor), ino, os.makedev(rdev_major, rdev_minor), size, blocks,
        blksize, clamp_time(a_s * 1_000_000_000 + a_ns), clamp_time(m_s * 1_000_000_000 + m_ns),
        clamp_time(c_s * 1_000_000_000 + c_ns), clamp_time(b_s * 1_000_000_000 + b_ns))  # fmt: skip


def is_mount_root(fd: int) -> bool:
    """Whether a file is the root of a host mount."""
    if _statx(fd, b"", _AT_EMPTY_PATH, 0, _buffer):
        _raise_errno()
    return bool(_STATX.unpack_from(_buffer)[2] & _STATX_ATTR_MOUNT_ROOT)


def filesystem_magic(fd: int) -> int:
    """Gives the magic number of the host file system a file is in."""
    if _libc.fstatfs(fd, _buffer):
        _raise_errno()
    magic: int = _F_TYPE.unpack_from(_buffer)[0]
    return magic


def rename(old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int) -> None:
    """Renames with RENAME_NOREPLACE or RENAME_EXCHANGE."""
    if _renameat2(old_fd, old, new_fd, new, flags):
        _raise_errno()


def sync_filesystem(fd: int) -> None:
    """Writes a whole host file system through."""
    if _libc.syncfs(fd):
        _raise_errno()
