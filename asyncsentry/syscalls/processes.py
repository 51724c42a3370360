"""Processes and threads: making them, ending them, waiting for them, naming them."""

from __future__ import annotations

from asyncsentry.abi import sched_h, wait_h
from asyncsentry.errnos import E2BIG, EAGAIN, EINVAL, ESRCH
from asyncsentry.fs.file import O_NONBLOCK
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX, PAGE_SIZE
from asyncsentry.syscalls.args import Fd, Flags, Int, Pointer, Size
from asyncsentry.syscalls.registry import Restart, syscall
from asyncsentry.tasks import clone as cloning
from asyncsentry.tasks import exit as exiting
from asyncsentry.tasks.groups import find_process, set_group, start_session
from asyncsentry.tasks.ids import check_may_attach
from asyncsentry.tasks.pidfd import PidFd, get_pidfd
from asyncsentry.tasks.thread import Thread
from asyncsentry.tasks.wait import ChildEvent, Selection, wait_for_child

_NAMESPACES_MISSING = "no new namespaces"
_WAIT4_OPTIONS = (wait_h.WNOHANG | wait_h.WUNTRACED | wait_h.WCONTINUED | wait_h.WNOTHREAD | wait_h.WCLONE
                  | wait_h.WALL)  # fmt: skip
_NEWS = wait_h.WEXITED | wait_h.WSTOPPED | wait_h.WCONTINUED
_INT_MIN = -(1 << 31)
_CLONE_LEGACY_MASK = 0xFFFFFFFF
_CLONE3_FLAGS = (1 << 34) - 1


@syscall(60)
def exit_(thread: Thread, code: Int) -> int:
    """exit(2): ends the calling thread."""
    exiting.exit_thread(thread, code)
    return 0


@syscall(231)
def exit_group(thread: Thread, code: Int) -> int:
    """exit_group(2): ends all threads of the process."""
    exiting.begin_group_exit(thread.process, (code & 0xFF) << 8)
    return 0


@syscall(56, errnos="EAGAIN EINVAL ENOMEM EPERM", restart=Restart.NOINTR, missing=_NAMESPACES_MISSING)
async def clone(thread: Thread, flags: Size, stack: Pointer, parent_tid: Pointer, child_tid: Pointer,
                tls: Pointer) -> int:
    """clone(2), as on x86-64."""
    flags = Size(flags & _CLONE_LEGACY_MASK)
    if flags & sched_h.CLONE_PIDFD and flags & (sched_h.CLONE_PARENT_SETTID | sched_h.CLONE_DETACHED):
        raise EINVAL("the pidfd has no place of its own")
    return await cloning.clone(thread, cloning.CloneArgs(
        flags & ~sched_h.CSIGNAL, flags & sched_h.CSIGNAL, stack, tls, parent_tid, child_tid, parent_tid))  # fmt: skip


@syscall(57, errnos="EAGAIN ENOMEM", restart=Restart.NOINTR)
async def fork(thread: Thread) -> int:
    """fork(2): copies the process."""
    return await cloning.clone(thread, cloning.CloneArgs(0, exit_signal=17))


@syscall(58, errnos="EAGAIN ENOMEM", restart=Restart.NOINTR)
async def vfork(thread: Thread) -> int:
    """vfork(2): lends the child the memory until it execs or exits."""
    return await cloning.clone(thread, cloning.CloneArgs(sched_h.CLONE_VFORK | sched_h.CLONE_VM, exit_signal=17))


@syscall(435, errnos="E2BIG EAGAIN EEXIST EFAULT EINVAL ENOMEM EPERM", restart=Restart.NOINTR,
         missing=_NAMESPACES_MISSING + ", no CLONE_INTO_CGROUP")
async def clone3(thread: Thread, arguments: Pointer, size: Size) -> int:
    """clone3(2): E2BIG, EINVAL for the structure, EFAULT, then clone's own."""
    if size > PAGE_SIZE:
        raise E2BIG("larger than a page")
    if size < sched_h.CLONE_ARGS_SIZE_VER0:
        raise EINVAL("smaller than the first version")
    data = thread.memory.read(arguments, size)
    known = sched_h.CLONE_ARGS.size
    if any(data[known:]):
        raise E2BIG("unknown fields are set")
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _ = (
        sched_h.CLONE_ARGS.unpack(data[:known].ljust(known, b"\0")))
    if flags & ~_CLONE3_FLAGS or flags & (sched_h.CLONE_INTO_CGROUP | sched_h.CLONE_DETACHED) or exit_signal >> 8:
        raise EINVAL("unknown flags")
    if flags & (sched_h.CLONE_THREAD | sched_h.CLONE_PARENT) and exit_signal:
        raise EINVAL("a thread or sibling has no exit signal of its own")
    if bool(stack) != bool(stack_size) or stack + stack_size > GUEST_ADDRESS_MAX:
        raise EINVAL("not a stack")
    return await cloning.clone(thread, cloning.CloneArgs(
        flags & ~sched_h.CSIGNAL | flags & sched_h.CLONE_NEWTIME, exit_signal, stack + stack_size, tls, parent_tid,
        child_tid, pidfd, _read_set_tid(thread, set_tid, set_tid_size)))  # fmt: skip


def _read_set_tid(thread: Thread, address: int, count: int) -> int:
    """Reads the one pid that can be asked for: there is one pid namespace."""
    if bool(address) != bool(count) or count > 1:
        raise EINVAL("more pids than namespaces")
    return max(thread.memory.read_i32(address), -1) or -1 if count else 0


@syscall(61, errnos="ECHILD EFAULT EINVAL ESRCH")
async def wait4(thread: Thread, pid: Int, status: Pointer, options: Flags, rusage: Pointer) -> int:
    """wait4(2): EINVAL, ESRCH, ECHILD; a bad address is noticed once the child is reaped."""
    if options & ~_WAIT4_OPTIONS:
        raise EINVAL(f"unknown options {options:#x}")
    if pid == _INT_MIN:
        raise ESRCH("no such process group")
    options = Flags(options | wait_h.WEXITED)
    if pid > 0:
        selection = Selection(options, pid=pid)
    elif pid == -1:
        selection = Selection(options)
    else:
        selection = Selection(options, pgid=-pid if pid else thread.process.group.pgid)
    event = await wait_for_child(thread, selection)
    if event is None:
        return 0
    if status:
        thread.memory.write_i32(status, event.wait_status)
    if rusage:
        thread.memory.write(rusage, event.usage.pack())
    return event.pid


@syscall(247, errnos="EAGAIN EBADF ECHILD EFAULT EINVAL")
async def waitid(thread: Thread, kind: Int, number: Int, info: Pointer, options: Flags, rusage: Pointer) -> int:
    """waitid(2): EINVAL for options and kind, EBADF for a pidfd, then ECHILD."""
    if options & ~(_WAIT4_OPTIONS | wait_h.WEXITED | wait_h.WNOWAIT) or not options & _NEWS:
        raise EINVAL(f"unknown or too few options {options:#x}")
    selection, nonblocking = _waitid_selection(thread, kind, number, options)
    event = await wait_for_child(thread, selection, nonblocking)
    if event is None and nonblocking and not options & wait_h.WNOHANG:
        raise EAGAIN("the pidfd is non-blocking")
    if event is not None and rusage:
        thread.memory.write(rusage, event.usage.pack())
    if info:
        thread.memory.write(info, _child_siginfo(event))
    return 0


def _waitid_selection(thread: Thread, kind: int, number: int, options: int) -> tuple[Selection, bool]:
    if kind == wait_h.P_ALL:
        return Selection(options), False
    if kind == wait_h.P_PID:
        if number <= 0:
            raise EINVAL("not a pid")
        return Selection(options, pid=number), False
    if kind == wait_h.P_PGID:
        if number < 0:
            raise EINVAL("not a process group")
        return Selection(options, pgid=number or thread.process.group.pgid), False
    if kind == wait_h.P_PIDFD:
        if number < 0:
            raise EINVAL("not a descriptor")
        pidfd = get_pidfd(thread, number)
        return Selection(options, pid=pidfd.process.pid if pidfd.is_present else 0), bool(pidfd.flags & O_NONBLOCK)
    raise EINVAL(f"unknown kind {kind}")


def _child_siginfo(event: ChildEvent | None) -> bytes:
    if event is None:
        return wait_h.SIGINFO_CHILD.pack(0, 0, 0, 0, 0, 0, 0)
    return wait_h.SIGINFO_CHILD.pack(17, 0, event.code, 0, event.pid, event.uid, event.siginfo_status)


@syscall(39)
def getpid(thread: Thread) -> int:
    """getpid(2)."""
    return thread.process.pid


@syscall(186)
def gettid(thread: Thread) -> int:
    """gettid(2)."""
    return thread.tid


@syscall(110)
def getppid(thread: Thread) -> int:
    """getppid(2): 0 where the parent is outside the sandbox."""
    parent = thread.process.parent
    return parent.pid if parent is not None else 0


@syscall(111)
def getpgrp(thread: Thread) -> int:
    """getpgrp(2)."""
    return thread.process.group.pgid


@syscall(121, errnos="ESRCH")
def getpgid(thread: Thread, pid: Int) -> int:
    """getpgid(2)."""
    return find_process(thread, pid).group.pgid


@syscall(124, errnos="ESRCH")
def getsid(thread: Thread, pid: Int) -> int:
    """getsid(2)."""
    return find_process(thread, pid).session.sid


@syscall(109, errnos="EACCES EINVAL EPERM ESRCH")
def setpgid(thread: Thread, pid: Int, pgid: Int) -> int:
    """setpgid(2): EINVAL, ESRCH, EPERM and EACCES for the process, then EPERM for the group."""
    caller = thread.process
    pid = Int(pid or caller.pid)
    pgid = Int(pgid or pid)
    if pgid < 0:
        raise EINVAL("not a process group")
    set_group(caller, find_process(thread, pid), pgid)
    return 0


@syscall(112, errnos="EPERM")
def setsid(thread: Thread) -> int:
    """setsid(2): EPERM if a process group of the caller's number exists."""
    start_session(thread.process)
    return thread.process.pid


@syscall(218)
def set_tid_address(thread: Thread, address: Pointer) -> int:
    """set_tid_address(2)."""
    thread.clear_child_tid = address
    return thread.tid


@syscall(434, errnos="EINVAL EMFILE ESRCH", missing="no PIDFD_THREAD")
def pidfd_open(thread: Thread, pid: Int, flags: Flags) -> int:
    """pidfd_open(2): EINVAL, then ESRCH; EINVAL too for a thread that leads no process."""
    if flags & ~O_NONBLOCK or pid <= 0:
        raise EINVAL("unknown flags or not a pid")
    process = thread.kernel.processes.get(pid)
    if process is None:
        if pid in thread.kernel.threads:
            raise EINVAL(f"thread {pid} leads no process")
        raise ESRCH(f"no process {pid}")
    return thread.fds.install(PidFd(process, flags), close_on_exec=True)


@syscall(438, errnos="EBADF EINVAL EMFILE EPERM ESRCH")
def pidfd_getfd(thread: Thread, pidfd: Fd, fd: Fd, flags: Flags) -> int:
    """pidfd_getfd(2): EINVAL, EBADF for the pidfd, ESRCH, EPERM, then EBADF for the descriptor there."""
    if flags:
        raise EINVAL("unknown flags")
    process = get_pidfd(thread, pidfd).process
    if not process.threads:
        raise ESRCH(f"process {process.pid} is gone")
    check_may_attach(thread, process)
    file = process.leader.fds.get(fd)
    return thread.fds.install(file, close_on_exec=True)
