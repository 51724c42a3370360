"""seccomp(2)."""

from __future__ import annotations

from asyncsentry.abi import seccomp_h as abi
from asyncsentry.errnos import EINVAL, EOPNOTSUPP
from asyncsentry.syscalls.args import Flags, Pointer, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.prctl import read_filter
from asyncsentry.tasks.seccomp import add_filter, set_strict
from asyncsentry.tasks.thread import Thread

_FLAGS = (abi.SECCOMP_FILTER_FLAG_TSYNC | abi.SECCOMP_FILTER_FLAG_LOG | abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW
          | abi.SECCOMP_FILTER_FLAG_TSYNC_ESRCH)  # fmt: skip
_ACTIONS = (abi.SECCOMP_RET_KILL_PROCESS, abi.SECCOMP_RET_KILL_THREAD, abi.SECCOMP_RET_TRAP, abi.SECCOMP_RET_ERRNO,
            abi.SECCOMP_RET_TRACE, abi.SECCOMP_RET_LOG, abi.SECCOMP_RET_ALLOW)  # fmt: skip


@syscall(317, errnos="EACCES EFAULT EINVAL ENOMEM EOPNOTSUPP ESRCH", missing="no user notification")
def seccomp(thread: Thread, operation: UInt, flags: Flags, arguments: Pointer) -> int:
    """seccomp(2): EINVAL for operation and flags, EACCES, EFAULT, EINVAL for the program."""
    if operation == abi.SECCOMP_SET_MODE_STRICT:
        if flags or arguments:
            raise EINVAL("strict mode has no arguments")
        set_strict(thread)
        return 0
    if operation == abi.SECCOMP_SET_MODE_FILTER:
        if flags & ~_FLAGS:
            raise EINVAL("unknown flags")
        return add_filter(thread, read_filter(thread, arguments), bool(flags & abi.SECCOMP_FILTER_FLAG_TSYNC),
                          bool(flags & abi.SECCOMP_FILTER_FLAG_TSYNC_ESRCH))
    if operation == abi.SECCOMP_GET_ACTION_AVAIL:
        if flags:
            raise EINVAL("unknown flags")
        if thread.memory.read_u32(arguments) not in _ACTIONS:
            raise EOPNOTSUPP("no such action")
        return 0
    raise EINVAL(f"no operation {operation}")
