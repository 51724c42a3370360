"""Finding processes, process groups and sessions, and moving between them. See setpgid(2), setsid(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.errnos import EACCES, EPERM, ESRCH
from asyncsentry.tasks.process import ProcessGroup, Session

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread


def find_thread(thread: Thread, tid: int) -> Thread:
    """Finds a thread by number, 0 meaning the caller; ESRCH if there is none."""
    if tid == 0:
        return thread
    found = thread.kernel.threads.get(tid)
    if found is None:
        raise ESRCH(f"no thread {tid}")
    return found


def find_process(thread: Thread, pid: int) -> Process:
    """Finds a process by its own or a thread's number, 0 meaning the caller's; ESRCH if there is none."""
    if pid == 0:
        return thread.process
    process = thread.kernel.processes.get(pid)
    if process is None:
        return find_thread(thread, pid).process
    return process


def find_group(kernel: Kernel, pgid: int) -> ProcessGroup | None:
    """Finds a process group that has members, zombies included."""
    return next((process.group for process in kernel.processes.values() if process.group.pgid == pgid), None)


def set_group(caller: Process, process: Process, pgid: int) -> None:
    """Moves a process to a group, made if it is to lead it. ESRCH, EPERM, EACCES as setpgid(2) orders them."""
    if process is not caller:
        if process.parent is not caller:
            raise ESRCH(f"process {process.pid} is no child")
        if process.session is not caller.session:
            raise EPERM(f"process {process.pid} is in another session")
        if process.has_execed:
            raise EACCES(f"process {process.pid} has called execve")
    if process.session.sid == process.pid:
        raise EPERM("a session leader stays where it is")
    group = find_group(process.kernel, pgid)
    if pgid == process.pid and group is None:
        group = ProcessGroup(pgid, process.session)
    if group is None or group.session is not caller.session:
        raise EPERM(f"no process group {pgid} in the session")
    _move(process, group)


def start_session(process: Process) -> None:
    """Makes a process the leader of a new session and group; EPERM if it leads a group already."""
    if find_group(process.kernel, process.pid) is not None:
        raise EPERM("already the leader of a process group")
    _move(process, ProcessGroup(process.pid, Session(process.pid)))


def _move(process: Process, group: ProcessGroup) -> None:
    process.group.members.discard(process)
    process.group = group
    group.members.add(process)
