"""What terminals ask of processes: see ``fs/tty/jobcontrol.py`` ``JobControl``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import signal_h as abi
from asyncsentry.tasks.groups import find_group
from asyncsentry.tasks.signals import SigInfo, is_orphaned, send_to_group, send_to_process
from asyncsentry.tasks.signals.actions import bit

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel
    from asyncsentry.tasks.process import ProcessGroup, Session
    from asyncsentry.tasks.thread import Thread


class GuestJobControl:
    """Satisfies ``JobControl``; one per kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def signal_group(self, group: ProcessGroup, signo: int) -> None:
        """Sends a signal of the kernel's own to every process of a group."""
        send_to_group(group, SigInfo(signo, abi.SI_KERNEL))

    def signal_leader(self, session: Session, signo: int) -> None:
        """Sends one to the leader of a session, if it lives."""
        leader = self._kernel.processes.get(session.sid)
        if leader is not None and leader.session is session:
            send_to_process(leader, SigInfo(signo, abi.SI_KERNEL))

    def is_orphaned(self, group: ProcessGroup) -> bool:
        """Whether nobody in the session looks after a group."""
        return is_orphaned(group)

    def is_ignoring(self, thread: Thread, signo: int) -> bool:
        """Whether a thread blocks a signal or its process ignores it."""
        ignores = thread.process.signals.actions[signo].handler == abi.SIG_IGN
        return ignores or bool(thread.signal_mask & bit(signo))

    def find_group(self, pgid: int) -> ProcessGroup | None:
        """Finds a process group that has members."""
        return find_group(self._kernel, pgid)
