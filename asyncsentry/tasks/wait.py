"""Waiting for children to change state: wait4(2) and waitid(2).

A child's news are fields of the child (``exit_status``, ``stop_report``, ``continue_report``); whoever
changes them notifies the parent's ``child_queue``. Threads of a process wait for all its children alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncsentry.abi import wait_h as abi
from asyncsentry.abi.signal_h import SIGCHLD, SIGCONT
from asyncsentry.errnos import ECHILD
from asyncsentry.tasks.family import cause_of_death, reap
from asyncsentry.tasks.usage import Usage, process_usage
from asyncsentry.waiter import POLLIN

if TYPE_CHECKING:
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread


class Selection(NamedTuple):
    """Which children a wait is about, and which of their news (``W*`` options)."""

    options: int
    pid: int | None = None
    pgid: int | None = None

    def admits(self, thread: Thread, child: Process) -> bool:
        """Whether a child is meant, news or not."""
        if self.pid not in (None, child.pid) or self.pgid not in (None, child.group.pgid):
            return False
        if self.options & abi.WNOTHREAD and child.parent_tid != thread.tid:
            return False
        return bool(self.options & abi.WALL) or (child.exit_signal != SIGCHLD) == bool(self.options & abi.WCLONE)


class ChildEvent(NamedTuple):
    """One piece of news of a child."""

    pid: int
    uid: int
    code: int
    """``CLD_*``"""
    wait_status: int
    """As wait4(2) gives it."""
    usage: Usage

    @property
    def siginfo_status(self) -> int:
        """The exit code or signal number alone, as waitid(2) gives it."""
        if self.code == abi.CLD_EXITED:
            return self.wait_status >> 8 & 0xFF
        if self.code in (abi.CLD_KILLED, abi.CLD_DUMPED):
            return self.wait_status & 0x7F
        return SIGCONT if self.code == abi.CLD_CONTINUED else self.wait_status >> 8 & 0xFF


async def wait_for_child(thread: Thread, selection: Selection, nonblocking: bool = False) -> ChildEvent | None:
    """Waits for news of a child; ``None`` if there is none and WNOHANG (or ``nonblocking``) says not to wait.

    ECHILD if no child is meant.
    """
    queue = thread.process.child_queue
    while (event := _find_event(thread, selection)) is None:
        if nonblocking or selection.options & abi.WNOHANG:
            return None
        await thread.block(queue, POLLIN)
    return event


def _find_event(thread: Thread, selection: Selection) -> ChildEvent | None:
    has_candidates = False
    for child in thread.process.children:
        if selection.admits(thread, child):
            has_candidates = True
            if (event := _take_event(child, selection.options)) is not None:
                return event
    if not has_candidates:
        raise ECHILD("no child to wait for")
    return None


def _take_event(child: Process, options: int) -> ChildEvent | None:
    """Gives a child's news and, without WNOWAIT, marks them as fetched."""
    consume = not options & abi.WNOWAIT
    if child.is_zombie:
        if not options & abi.WEXITED:
            return None
        status = child.exit_status or 0
        event = _event(child, cause_of_death(status), status)
        if consume:
            reap(child)
        return event
    if child.stop_report is not None and options & abi.WSTOPPED:
        event = _event(child, abi.CLD_STOPPED, child.stop_report)
        child.stop_report = None if consume else child.stop_report
        return event
    if child.continue_report and options & abi.WCONTINUED:
        child.continue_report = not consume
        return _event(child, abi.CLD_CONTINUED, abi.STATUS_CONTINUED)
    return None


def _event(child: Process, code: int, wait_status: int) -> ChildEvent:
    usage = Usage()
    usage.add(process_usage(child))
    usage.add(child.children_usage)
    return ChildEvent(child.pid, child.credentials.ruid, code, wait_status, usage)
