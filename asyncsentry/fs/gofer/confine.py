"""How the gofer gives up, before the first request, whatever it does not need: capabilities and system calls.

It keeps the capabilities of file access, and only calls on files, on its socket and on its own memory: no
programs started, no other process touched, no network, no mounts. A call outside the list fails with EPERM.
See capabilities(7), seccomp(2), and prctl(2) for the death signal.
"""

from __future__ import annotations

import ctypes
import os
from struct import Struct

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2

_CAPABILITY_VERSION_3 = 0x20080522
_CAP_HEADER = Struct("=Ii")
_CAP_DATA = Struct("=6I")
"""Effective, permitted, inheritable: the low words, then the high words."""
_CAP_CHOWN = 0
_KEPT_CAPABILITIES = 0b11111
"""CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID."""

_AUDIT_ARCH_X86_64 = 0xC000003E
_FIRST_X32_NUMBER = 0x4000_0000
_AF_UNIX = 1
_NR_SOCKET = 41
_ALLOWED_CALLS = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20,
    "mremap": 25, "madvise": 28, "dup": 32, "getpid": 39, "connect": 42, "sendmsg": 46, "recvmsg": 47, "exit": 60,
    "fcntl": 72, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "getcwd": 79, "rmdir": 84, "link": 86,
    "unlink": 87, "symlink": 88, "readlink": 89, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110, "sigaltstack": 131, "statfs": 137,
    "fstatfs": 138, "setxattr": 188, "lsetxattr": 189, "getxattr": 191, "lgetxattr": 192, "listxattr": 194,
    "llistxattr": 195, "removexattr": 197, "lremovexattr": 198, "futex": 202, "getdents64": 217, "clock_gettime": 228,
    "exit_group": 231, "openat": 257, "mkdirat": 258, "mknodat": 259, "fchownat": 260, "newfstatat": 262,
    "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266, "readlinkat": 267, "fchmodat": 268,
    "utimensat": 280, "syncfs": 306, "renameat2": 316, "getrandom": 318, "statx": 332, "openat2": 437,
}  # fmt: skip
_FILTER = Struct("=HBBI")
_PROGRAM = Struct("@HP")
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_RET_ALLOW, _RET_KILL_PROCESS, _RET_EPERM = 0x7FFF_0000, 0x8000_0000, 0x0005_0001


def die_with_parent(parent_pid: int) -> None:
    """Has the kernel kill this process when its parent goes; leaves if it is gone already."""
    _prctl(_PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent_pid:
        raise SystemExit("the gofer's parent is gone")


def drop_capabilities() -> bool:
    """Keeps only the capabilities of file access, if there are any, and gives whether files can be given away."""
    header = _CAP_HEADER.pack(_CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(_CAP_DATA.size)
    if _libc.capget(header, data):
        _raise_errno()
    kept = _CAP_DATA.unpack(data)[1] & _KEPT_CAPABILITIES
    if _libc.capset(header, _CAP_DATA.pack(kept, kept, 0, 0, 0, 0)):
        _raise_errno()
    return bool(kept >> _CAP_CHOWN & 1)


def lock_privileges() -> None:
    """Gives up for ever what an exec could gain, and hides this process from others of its user."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def restrict_calls() -> None:
    """Installs the filter of system calls."""
    code = _filter_program()
    program = ctypes.create_string_buffer(code)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER,
           ctypes.c_char_p(_PROGRAM.pack(len(code) // _FILTER.size, ctypes.addressof(program))))


def _filter_program() -> bytes:
    """Assembles: kill foreign architectures, allow the list, sockets only of AF_UNIX, EPERM for the rest."""
    allow = len(_ALLOWED_CALLS)
    code = [
        (_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH_X86_64), (_RETURN, 0, 0, _RET_KILL_PROCESS),
        (_LOAD, 0, 0, 0), (_JUMP_AT_LEAST, allow + 3, 0, _FIRST_X32_NUMBER),
    ]  # fmt: skip
    code += [(_JUMP_EQUAL, allow - index + 3, 0, number) for index, number in enumerate(_ALLOWED_CALLS.values())]
    code += [
        (_JUMP_EQUAL, 0, 2, _NR_SOCKET), (_LOAD, 0, 0, 16), (_JUMP_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _RET_EPERM), (_RETURN, 0, 0, _RET_ALLOW),
    ]  # fmt: skip
    return b"".join(_FILTER.pack(*instruction) for instruction in code)


def _prctl(option: int, *arguments: object) -> None:
    if _libc.prctl(option, *arguments, *(0,) * (4 - len(arguments))):
        _raise_errno()


def _raise_errno() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
