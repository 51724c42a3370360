"""Job control's half of signals: stopping processes. ``send.py`` continues them, at the moment SIGCONT is sent.

A process is stopping from the moment ``process.stop_signal`` is set; it is stopped, and its parent is told,
when every thread of it has come to :func:`wait_while_stopped`. See wait(2), setpgid(2) on orphaned groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import signal_h as abi
from asyncsentry.tasks.signals.actions import bit
from asyncsentry.tasks.signals.send import notify_parent
from asyncsentry.waiter import POLLIN

if TYPE_CHECKING:
    from asyncsentry.tasks.process import Process, ProcessGroup
    from asyncsentry.tasks.thread import Thread

_STOPPED = 0x7F  # the low byte of a wait status that tells of a stop


def begin_stop(process: Process, signo: int) -> None:
    """Stops a process: each of its threads comes to a halt where it would deliver signals."""
    process.stop_signal = signo
    process.is_stop_complete = False
    process.continue_report = False
    for thread in process.threads.values():
        thread.kick()


async def wait_while_stopped(thread: Thread) -> None:
    """Halts a thread until its process is continued or killed."""
    thread.is_stopped = True
    finish_stop(thread.process)
    try:
        while thread.process.stop_signal and not _must_leave(thread):
            await thread.wait(((thread.process.signals.stop_queue, POLLIN),), None, interruptible=False)
    finally:
        thread.is_stopped = False
        thread.recalculate()


def finish_stop(process: Process, leaving: Thread | None = None) -> None:
    """Tells the parent of a stop once the last thread has halted, or (``leaving``) has gone instead."""
    if not process.stop_signal or process.is_stop_complete:
        return
    if all(thread.is_stopped for thread in process.threads.values() if thread is not leaving):
        process.is_stop_complete = True
        process.stop_report = process.stop_signal << 8 | _STOPPED
        notify_parent(process, abi.CLD_STOPPED)


def is_orphaned(group: ProcessGroup, without: Process | None = None) -> bool:
    """Whether no process of another group in its session looks after a group: the terminal cannot stop it then.

    ``without`` leaves out a member that is about to go.
    """
    for member in group.members:
        parent = member.parent
        if member is without or member.is_zombie or parent is None:
            continue
        if parent.group is not group and parent.session is group.session:
            return False
    return True


def _must_leave(thread: Thread) -> bool:
    return (thread.process.group_exit_status is not None or thread.kill_pending
            or bool(thread.pending_signals & bit(abi.SIGKILL)))
