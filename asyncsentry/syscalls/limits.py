"""Resource limits and what has been used of resources."""

from __future__ import annotations

from asyncsentry.abi import resource_h as abi
from asyncsentry.errnos import EINVAL, EPERM
from asyncsentry.syscalls.args import Int, Pointer, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.credentials import CAP_SYS_RESOURCE
from asyncsentry.tasks.groups import find_process
from asyncsentry.tasks.limits import set_limit
from asyncsentry.tasks.process import Process
from asyncsentry.tasks.thread import Thread
from asyncsentry.tasks.usage import Usage, process_usage, thread_usage


@syscall(97, errnos="EFAULT EINVAL")
def getrlimit(thread: Thread, resource: UInt, limit: Pointer) -> int:
    """getrlimit(2)."""
    thread.memory.write_struct(limit, abi.RLIMIT, *thread.process.limits.get(resource))
    return 0


@syscall(160, errnos="EFAULT EINVAL EPERM")
def setrlimit(thread: Thread, resource: UInt, limit: Pointer) -> int:
    """setrlimit(2): EFAULT, EINVAL, EPERM."""
    soft, hard = thread.memory.read_struct(limit, abi.RLIMIT)
    set_limit(thread.process, resource, soft, hard, thread.credentials)
    return 0


@syscall(302, errnos="EFAULT EINVAL EPERM ESRCH")
def prlimit64(thread: Thread, pid: Int, resource: UInt, new_limit: Pointer, old_limit: Pointer) -> int:
    """prlimit64(2): EFAULT for the new limit, ESRCH, EPERM, EINVAL, EFAULT for the old one."""
    new = thread.memory.read_struct(new_limit, abi.RLIMIT) if new_limit else None
    process = find_process(thread, pid)
    _check_may_limit(thread, process)
    old = process.limits.get(resource)
    if new is not None:
        set_limit(process, resource, new[0], new[1], thread.credentials)
    if old_limit:
        thread.memory.write_struct(old_limit, abi.RLIMIT, *old)
    return 0


def _check_may_limit(thread: Thread, process: Process) -> None:
    caller, target = thread.credentials, process.credentials
    is_same_user = {target.ruid, target.euid, target.suid} == {caller.ruid}
    is_same_group = {target.rgid, target.egid, target.sgid} == {caller.rgid}
    if process is not thread.process and not (is_same_user and is_same_group) and not caller.has(CAP_SYS_RESOURCE):
        raise EPERM(f"process {process.pid} is another user's")


@syscall(98, errnos="EFAULT EINVAL")
def getrusage(thread: Thread, who: Int, usage: Pointer) -> int:
    """getrusage(2)."""
    thread.memory.write(usage, _usage_of(thread, who).pack())
    return 0


def _usage_of(thread: Thread, who: int) -> Usage:
    if who == abi.RUSAGE_SELF:
        return process_usage(thread.process)
    if who == abi.RUSAGE_CHILDREN:
        return thread.process.children_usage
    if who == abi.RUSAGE_THREAD:
        return thread_usage(thread)
    raise EINVAL(f"nobody is {who}")
