"""What threads share: taking part in less of it (unshare), joining namespaces (setns), comparing (kcmp)."""

from __future__ import annotations

from typing import Any

from asyncsentry.abi import sched_h
from asyncsentry.errnos import EBADF, EINVAL, EPERM, ESRCH
from asyncsentry.syscalls.args import Fd, Int, Size
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.groups import find_thread
from asyncsentry.tasks.ids import check_may_attach
from asyncsentry.tasks.thread import Thread

_UNSHARABLE = (sched_h.CLONE_NAMESPACES | sched_h.CLONE_FS | sched_h.CLONE_FILES | sched_h.CLONE_SIGHAND
               | sched_h.CLONE_VM | sched_h.CLONE_THREAD | sched_h.CLONE_SYSVSEM)  # fmt: skip
KCMP_FILE, KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_IO, KCMP_SYSVSEM = range(7)


@syscall(272, errnos="EINVAL EPERM", missing="no new namespaces")
def unshare(thread: Thread, flags: Size) -> int:
    """unshare(2): EINVAL, then EPERM for namespaces."""
    if flags & ~_UNSHARABLE:
        raise EINVAL("unknown flags")
    if flags & sched_h.CLONE_THREAD and len(thread.process.threads) > 1:
        raise EINVAL("threads cannot leave their process")
    if flags & (sched_h.CLONE_SIGHAND | sched_h.CLONE_VM) and thread.memory.users > 1:
        raise EINVAL("memory cannot be left")
    if flags & sched_h.CLONE_NAMESPACES:
        raise EPERM("namespaces cannot be made")
    if flags & sched_h.CLONE_FS:
        thread.fs = thread.fs.copy()
    if flags & sched_h.CLONE_FILES and thread.fds.users > 1:
        thread.fds.users -= 1
        thread.fds = thread.fds.copy()
    return 0


@syscall(308, errnos="EBADF EINVAL", missing="there are no namespaces to join")
def setns(thread: Thread, fd: Fd, kind: Int) -> int:
    """setns(2)."""
    thread.fds.get(fd)
    raise EINVAL("not a namespace")


@syscall(312, errnos="EBADF EINVAL EPERM ESRCH", missing="no KCMP_EPOLL_TFD")
def kcmp(thread: Thread, pid1: Int, pid2: Int, kind: Int, index1: Size, index2: Size) -> int:
    """kcmp(2): ESRCH, EPERM, then EBADF or EINVAL; 0 for the same object, else 1 or 2 as an order has it."""
    if not pid1 or not pid2:
        raise ESRCH("0 is no thread")
    first, second = find_thread(thread, pid1), find_thread(thread, pid2)
    check_may_attach(thread, first.process)
    check_may_attach(thread, second.process)
    one, other = _shared_object(first, kind, index1), _shared_object(second, kind, index2)
    return 0 if one is other else 1 if id(one) < id(other) else 2


def _shared_object(thread: Thread, kind: int, index: int) -> Any:
    if kind == KCMP_FILE:
        file = thread.fds.files.get(index & 0xFFFFFFFF)
        if file is None:
            raise EBADF(f"fd {index} is closed")
        return file
    objects = {KCMP_VM: thread.memory, KCMP_FILES: thread.fds, KCMP_FS: thread.fs,
               KCMP_SIGHAND: thread.process.signals.actions, KCMP_IO: thread.scheduling,
               KCMP_SYSVSEM: thread.process}  # fmt: skip
    if kind not in objects:
        raise EINVAL(f"nothing of kind {kind} is compared")
    return objects[kind]
