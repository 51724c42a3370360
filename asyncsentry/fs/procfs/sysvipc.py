"""/proc/sysvipc: System V shared memory segments, semaphore sets and message queues. See proc_sysvipc(5).

The tables hang from the kernel; their objects are duck-typed, for file systems do not import ``tasks``.
"""

from __future__ import annotations

from typing import Any

from asyncsentry.fs.procfs.base import ProcFileSystem

_SHM_HEADER = (
    "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
    "      atime      dtime      ctime                   rss                  swap\n"
)
_SEM_HEADER = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"
_MSG_HEADER = (
    "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
    "      stime      rtime      ctime\n"
)


def _signed(key: int) -> int:
    return (key & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _owners(item: Any) -> str:
    return f"{item.uid:5d} {item.gid:5d} {item.cuid:5d} {item.cgid:5d}"


def render_shm(proc: ProcFileSystem) -> str:
    """Renders the shared memory segments."""
    return _SHM_HEADER + "".join(
        f"{_signed(item.key):10d} {item.id:10d}  {item.mode:4o} {item.size:21d} {item.creator_pid:5d} "
        f"{item.last_pid:5d}  {item.attach_count:5d} {_owners(item)} {item.attach_time:10d} {item.detach_time:10d} "
        f"{item.change_time:10d} {0:21d} {0:21d}\n"
        for item in proc.kernel.shared_memory
    )


def render_sem(proc: ProcFileSystem) -> str:
    """Renders the semaphore sets."""
    return _SEM_HEADER + "".join(
        f"{_signed(item.key):10d} {item.id:10d}  {item.mode:4o} {len(item.values):10d} {_owners(item)} "
        f"{item.operation_time:10d} {item.change_time:10d}\n"
        for item in proc.kernel.semaphores
    )


def render_msg(proc: ProcFileSystem) -> str:
    """Renders the message queues."""
    return _MSG_HEADER + "".join(
        f"{_signed(item.key):10d} {item.id:10d}  {item.mode:4o}  {item.byte_count:10d} {len(item.messages):10d} "
        f"{item.last_sender:5d} {item.last_receiver:5d} {_owners(item)} {item.send_time:10d} {item.receive_time:10d} "
        f"{item.change_time:10d}\n"
        for item in proc.kernel.messages
    )
