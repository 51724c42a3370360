"""Relations between processes when one of them ends: adoption, orphaned groups, terminals, reaping.

See wait(2) "Notes", prctl(2) PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG, setpgid(2), credentials(7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from asyncsentry.abi import signal_h as abi
from asyncsentry.tasks.signals import SigInfo, is_orphaned, notify_parent, send_to_group, send_to_process
from asyncsentry.tasks.usage import process_usage
from asyncsentry.waiter import POLLIN

if TYPE_CHECKING:
    from asyncsentry.tasks.process import Process, ProcessGroup, Session


class ControllingTerminal(Protocol):
    """What the end of a session's leader asks of its terminal."""

    def session_leader_exited(self, session: Session) -> None:
        """Hangs up: SIGHUP and SIGCONT to the foreground group, and no controlling terminal any more."""


def leave_family(process: Process) -> None:
    """Does all that follows for others once a process has become a zombie."""
    _hang_up_session(process)
    bereft = _groups_it_linked(process)
    for child in tuple(process.children):
        _adopt(child)
    for group in bereft:
        if is_orphaned(group, without=process):
            _wake_stopped_orphans(group)
    _announce(process)


def _groups_it_linked(process: Process) -> set[ProcessGroup]:
    """Gives the groups that it, as a member's parent or as a member with a parent, tied to others of its session."""
    groups = {child.group for child in process.children if child.session is process.session}
    groups.discard(process.group)
    parent = process.parent
    if parent is not None and parent.group is not process.group and parent.session is process.session:
        groups.add(process.group)
    return groups


def _hang_up_session(process: Process) -> None:
    session = process.session
    if session.sid == process.pid and session.terminal is not None:
        terminal = cast(ControllingTerminal, session.terminal)
        session.terminal = None
        terminal.session_leader_exited(session)


def _announce(process: Process) -> None:
    """Tells the parent and all who watch; reaps at once if nobody in the sandbox will wait for it."""
    assert process.exit_status is not None
    is_unwanted = notify_parent(process, cause_of_death(process.exit_status))
    process.exit_queue.notify(POLLIN)
    if is_unwanted or process.parent is None:
        reap(process)


def reap(process: Process) -> None:
    """Removes a zombie for good; its parent inherits what it used."""
    parent, usage = process.parent, process_usage(process)
    usage.add(process.children_usage)
    process.kernel.processes.pop(process.pid, None)
    process.group.members.discard(process)
    if parent is not None:
        parent.children.remove(process)
        parent.children_usage.add(usage)


def _adopt(child: Process) -> None:
    """Gives an orphan to the nearest living subreaper among its ancestors, else to init, else to nobody."""
    old = child.parent
    assert old is not None
    new = _find_reaper(old)
    old.children.remove(child)
    child.parent = new
    _parent_died(child)
    if new is None:
        if child.is_zombie:
            _announce(child)
        return
    new.children.append(child)
    child.parent_tid = new.pid
    child.exit_signal = abi.SIGCHLD
    if child.is_zombie:
        _announce(child)


def _find_reaper(process: Process) -> Process | None:
    ancestor = process.parent
    while ancestor is not None:
        if ancestor.is_subreaper and ancestor.threads:
            return ancestor
        ancestor = ancestor.parent
    init = process.kernel.init
    return init if init is not None and init is not process and init.threads else None


def thread_leaves_children(process: Process, tid: int) -> None:
    """Hands the children an ended thread made to another thread of its process."""
    for child in process.children:
        if child.parent_tid == tid:
            child.parent_tid = process.leader.tid
            _parent_died(child)


def _parent_died(child: Process) -> None:
    for thread in tuple(child.threads.values()):
        if signo := thread.parent_death_signal:
            send_to_process(child, SigInfo(signo, abi.SI_USER))


def _wake_stopped_orphans(group: ProcessGroup) -> None:
    if any(member.stop_signal for member in group.members):
        send_to_group(group, SigInfo(abi.SIGHUP, abi.SI_KERNEL))
        send_to_group(group, SigInfo(abi.SIGCONT, abi.SI_KERNEL))


def cause_of_death(status: int) -> int:
    """Gives the ``CLD_*`` code of a wait status that tells of an exit."""
    if not status & 0x7F:
        return abi.CLD_EXITED
    return abi.CLD_DUMPED if status & 0x80 else abi.CLD_KILLED
