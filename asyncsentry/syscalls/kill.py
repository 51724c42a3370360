"""Sending signals from guests: kill(2), tgkill(2), rt_sigqueueinfo(2), pidfd_send_signal(2)."""

from __future__ import annotations

from collections.abc import Iterable

from asyncsentry.abi import signal_h as abi
from asyncsentry.errnos import EINVAL, EPERM, ESRCH, LinuxError
from asyncsentry.fs.procfs.process import TaskDirectory
from asyncsentry.syscalls.args import Fd, Flags, Int, Pointer, Signal
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.pidfd import get_pidfd
from asyncsentry.tasks.process import Process
from asyncsentry.tasks.signals import SigInfo, send_to_process, send_to_thread
from asyncsentry.tasks.signals.permission import check_may_signal
from asyncsentry.tasks.thread import Thread

_PIDFD_FLAGS = (0, abi.PIDFD_SIGNAL_THREAD, abi.PIDFD_SIGNAL_THREAD_GROUP, abi.PIDFD_SIGNAL_PROCESS_GROUP)
_INT_MIN = -(1 << 31)


@syscall(62, errnos="EINVAL EPERM ESRCH")
def kill(thread: Thread, pid: Int, signo: Signal) -> int:
    """kill(2): to a process, a group (0 or negative), or (-1) everyone but init and the caller."""
    if pid > 0:
        _signal_process(thread, _find_process(thread, pid), _user_info(thread, signo))
        return 0
    if pid == _INT_MIN:
        raise ESRCH("no such group")
    processes = thread.kernel.processes.values()
    if pid == -1:
        targets = [process for process in processes if process.pid > 1 and process is not thread.process]
    else:
        pgid = -pid or thread.process.group.pgid
        targets = [process for process in processes if process.group.pgid == pgid]
    _signal_all(thread, targets, signo)
    return 0


@syscall(200, errnos="EAGAIN EINVAL EPERM ESRCH")
def tkill(thread: Thread, tid: Int, signo: Signal) -> int:
    """tkill(2)."""
    if tid <= 0:
        raise EINVAL(f"tid {tid}")
    return _signal_thread(thread, 0, tid, _user_info(thread, signo, abi.SI_TKILL))


@syscall(234, errnos="EAGAIN EINVAL EPERM ESRCH")
def tgkill(thread: Thread, tgid: Int, tid: Int, signo: Signal) -> int:
    """tgkill(2)."""
    if tgid <= 0 or tid <= 0:
        raise EINVAL(f"tgid {tgid}, tid {tid}")
    return _signal_thread(thread, tgid, tid, _user_info(thread, signo, abi.SI_TKILL))


@syscall(129, errnos="EAGAIN EFAULT EINVAL EPERM ESRCH")
def rt_sigqueueinfo(thread: Thread, pid: Int, signo: Signal, info: Pointer) -> int:
    """rt_sigqueueinfo(2): EFAULT, then EPERM for codes that are the kernel's, then ESRCH."""
    siginfo = _read_info(thread, info, signo)
    _check_code(siginfo, is_self=pid == thread.tid)
    _signal_process(thread, _find_process(thread, pid), siginfo)
    return 0


@syscall(297, errnos="EAGAIN EFAULT EINVAL EPERM ESRCH")
def rt_tgsigqueueinfo(thread: Thread, tgid: Int, tid: Int, signo: Signal, info: Pointer) -> int:
    """rt_tgsigqueueinfo(2)."""
    siginfo = _read_info(thread, info, signo)
    if tgid <= 0 or tid <= 0:
        raise EINVAL(f"tgid {tgid}, tid {tid}")
    _check_code(siginfo, is_self=tid == thread.tid)
    return _signal_thread(thread, tgid, tid, siginfo)


@syscall(424, errnos="EAGAIN EBADF EFAULT EINVAL EPERM ESRCH")
def pidfd_send_signal(thread: Thread, pidfd: Fd, signo: Signal, info: Pointer, flags: Flags) -> int:
    """pidfd_send_signal(2)."""
    if flags not in _PIDFD_FLAGS:
        raise EINVAL(f"flags {flags:#x}")
    process = _process_of(thread, pidfd)
    if info:
        siginfo = SigInfo.from_bytes(thread.memory.read(info, abi.SIGINFO_SIZE))
        if siginfo.signo != signo:
            raise EINVAL("the siginfo tells of another signal")
        _check_code(siginfo, is_self=process is thread.process)
    else:
        siginfo = _user_info(thread, signo)
    if flags == abi.PIDFD_SIGNAL_PROCESS_GROUP:
        _signal_all(thread, process.group.members, signo)
        return 0
    if flags == abi.PIDFD_SIGNAL_THREAD:
        return _signal_thread(thread, process.pid, process.pid, siginfo)
    _signal_process(thread, process, siginfo)
    return 0


def _process_of(thread: Thread, fd: int) -> Process:
    """Finds the process a pidfd, or a descriptor of its directory in /proc, stands for; ESRCH if it was reaped."""
    inode = thread.fds.get(fd).inode
    if isinstance(inode, TaskDirectory) and not inode.subject.of_thread:
        process: Process = inode.subject.process
    else:
        process = get_pidfd(thread, fd).process
    if thread.kernel.processes.get(process.pid) is not process:
        raise ESRCH(f"process {process.pid} has been reaped")
    return process


def _find_process(thread: Thread, pid: int) -> Process:
    """Finds a process by its pid or by the tid of any of its threads."""
    kernel = thread.kernel
    if process := kernel.processes.get(pid):
        return process
    if other := kernel.threads.get(pid):
        return other.process
    raise ESRCH(f"no process {pid}")


def _signal_process(thread: Thread, process: Process, info: SigInfo) -> None:
    _check_signo(info.signo)
    check_may_signal(thread, process, info.signo)
    if info.signo:
        send_to_process(process, info)


def _signal_all(thread: Thread, processes: Iterable[Process], signo: int) -> None:
    """Signals all it may; succeeds if one could be signalled, else gives the last error."""
    _check_signo(signo)
    succeeded = False
    failure: LinuxError | None = None
    for process in sorted(processes, key=lambda target: target.pid):
        try:
            _signal_process(thread, process, _user_info(thread, signo))
            succeeded = True
        except LinuxError as error:
            failure = error
    if not succeeded:
        raise failure or ESRCH("no such processes")


def _signal_thread(thread: Thread, tgid: int, tid: int, info: SigInfo) -> int:
    """Signals one thread, which must belong to process ``tgid`` unless that is 0."""
    kernel = thread.kernel
    target = kernel.threads.get(tid)
    process = target.process if target is not None else kernel.processes.get(tid)
    if process is None or (tgid and process.pid != tgid):
        raise ESRCH(f"no thread {tid} in process {tgid}")
    _check_signo(info.signo)
    check_may_signal(thread, process, info.signo)
    if info.signo and target is not None:
        send_to_thread(target, info)
    return 0


def _check_signo(signo: int) -> None:
    if not 0 <= signo <= abi.NSIG:
        raise EINVAL(f"no signal {signo}")


def _check_code(info: SigInfo, is_self: bool) -> None:
    """EPERM for a siginfo that claims to come from the kernel or from kill(2), except to oneself."""
    if (info.code >= 0 or info.code == abi.SI_TKILL) and not is_self:
        raise EPERM(f"si_code {info.code} cannot be sent to others")


def _read_info(thread: Thread, address: int, signo: int) -> SigInfo:
    return SigInfo.from_bytes(thread.memory.read(address, abi.SIGINFO_SIZE)).with_signo(signo)


def _user_info(thread: Thread, signo: int, code: int = abi.SI_USER) -> SigInfo:
    return SigInfo(signo, code, pid=thread.process.pid, uid=thread.credentials.ruid)
