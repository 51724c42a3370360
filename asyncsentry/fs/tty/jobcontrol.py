"""Who may use a terminal: sessions, the foreground group, and what happens to background processes.

After Linux's tty_jobctrl.c. See credentials(7) "Sessions", termios(3) TOSTOP, ioctl_tty(2).
File systems do not import ``tasks``: guest threads are seen as :class:`Caller`, and what only ``tasks``
can do comes through :class:`JobControl`, which the kernel carries as ``job_control``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from asyncsentry import errnos
from asyncsentry.abi.capability_h import CAP_SYS_ADMIN

if TYPE_CHECKING:
    from asyncsentry.fs.tty.tty import Tty

SIGHUP, SIGCONT, SIGTTIN, SIGTTOU, SIGWINCH = 1, 18, 21, 22, 28


class Memory(Protocol):
    """Guest memory as control calls use it."""

    def read(self, address: int, count: int) -> bytes:
        """Copies out."""

    def write(self, address: int, data: bytes) -> None:
        """Copies in."""


class Caller(Protocol):
    """A guest thread that uses a terminal."""

    @property
    def kernel(self) -> Any:
        """Its kernel."""

    @property
    def process(self) -> Any:
        """Its process, with ``pid``, ``group`` and ``session``."""

    @property
    def credentials(self) -> Any:
        """Its credentials."""

    @property
    def memory(self) -> Memory:
        """Its memory."""


class JobControl(Protocol):
    """What terminals ask of ``tasks``. ``Any`` stands for the classes of ``tasks/process.py``."""

    def signal_group(self, group: Any, signo: int) -> None:
        """Sends a signal of the kernel's own to every process of a group."""

    def signal_leader(self, session: Any, signo: int) -> None:
        """Sends one to the leader of a session, if it lives."""

    def is_orphaned(self, group: Any) -> bool:
        """Whether nobody in the session looks after a group, so that it must not be stopped."""

    def is_ignoring(self, thread: Any, signo: int) -> bool:
        """Whether a thread blocks a signal or its process ignores it."""

    def find_group(self, pgid: int) -> Any | None:
        """Finds a process group."""


def is_controlling(tty: Tty, caller: Caller) -> bool:
    """Whether a terminal is the caller's controlling terminal."""
    return caller.process.session.terminal is tty


def check_foreground(tty: Tty, caller: Caller, signo: int) -> None:
    """Stops a background process that reads (SIGTTIN), writes with TOSTOP or changes settings (SIGTTOU).

    Raises EIO where it cannot be stopped, and Interrupted after sending the signal: the call is restarted
    once the process runs on.
    """
    if not is_controlling(tty, caller):
        return
    group = caller.process.group
    if tty.foreground is None or tty.foreground is group:
        return
    jobs = tty.terminals.job_control
    if jobs.is_ignoring(caller, signo):
        if signo == SIGTTIN:
            raise errnos.EIO("a background process that ignores SIGTTIN reads its terminal")
        return
    if jobs.is_orphaned(group):
        raise errnos.EIO("an orphaned background group uses its terminal")
    jobs.signal_group(group, signo)
    raise errnos.Interrupted


def become_controlling(tty: Tty, caller: Caller) -> None:
    """Makes a terminal the controlling one of the caller's session, its group in the foreground."""
    process = caller.process
    tty.session = process.session
    tty.foreground = process.group
    process.session.terminal = tty


def take_on_open(tty: Tty, caller: Caller) -> None:
    """Does what opening a terminal does for a session leader that has none (without O_NOCTTY)."""
    session = caller.process.session
    if session.sid == caller.process.pid and session.terminal is None and tty.session is None:
        become_controlling(tty, caller)


def take_by_request(tty: Tty, caller: Caller, may_steal: bool, is_readable: bool) -> None:
    """TIOCSCTTY: EPERM unless a leader without a terminal asks for one nobody has."""
    process = caller.process
    session = process.session
    is_leader = session.sid == process.pid
    if is_leader and tty.session is session:
        return
    if not is_leader or session.terminal is not None:
        raise errnos.EPERM("only a session leader without a terminal can take one")
    is_privileged = caller.credentials.has(CAP_SYS_ADMIN)
    if tty.session is not None:
        if not (may_steal and is_privileged):
            raise errnos.EPERM("it is another session's terminal")
        detach_session(tty)
    if not is_readable and not is_privileged:
        raise errnos.EPERM("not open for reading")
    become_controlling(tty, caller)


def give_up(tty: Tty, caller: Caller) -> None:
    """TIOCNOTTY: the leader gives the terminal up for the whole session."""
    process = caller.process
    session = process.session
    if session.terminal is not tty:
        raise errnos.ENOTTY("not the controlling terminal")
    if session.sid != process.pid:
        return
    foreground = tty.foreground
    detach_session(tty)
    if foreground is not None:
        tty.terminals.job_control.signal_group(foreground, SIGHUP)
        tty.terminals.job_control.signal_group(foreground, SIGCONT)


def detach_session(tty: Tty) -> None:
    """Separates a terminal from its session."""
    if tty.session is not None and tty.session.terminal is tty:
        tty.session.terminal = None
    tty.session = tty.foreground = None


def foreground_number(tty: Tty, caller: Caller, is_master: bool) -> int:
    """TIOCGPGRP."""
    if not is_master and not is_controlling(tty, caller):
        raise errnos.ENOTTY("not the controlling terminal")
    return tty.foreground.pgid if tty.foreground is not None else 0


def set_foreground(tty: Tty, caller: Caller, pgid: int) -> None:
    """TIOCSPGRP: the group must be of the caller's session."""
    try:
        check_foreground(tty, caller, SIGTTOU)
    except errnos.EIO:
        raise errnos.ENOTTY("an orphaned group has no say") from None
    session = caller.process.session
    if not is_controlling(tty, caller) or tty.session is not session:
        raise errnos.ENOTTY("not the controlling terminal")
    if pgid < 0:
        raise errnos.EINVAL(f"no process group {pgid}")
    group = tty.terminals.job_control.find_group(pgid)
    if group is None:
        raise errnos.ESRCH(f"no process group {pgid}")
    if group.session is not session:
        raise errnos.EPERM("the group is of another session")
    tty.foreground = group


def session_number(tty: Tty, caller: Caller, is_master: bool) -> int:
    """TIOCGSID."""
    if not is_master and not is_controlling(tty, caller):
        raise errnos.ENOTTY("not the controlling terminal")
    if tty.session is None:
        raise errnos.ENOTTY("no session has it")
    return int(tty.session.sid)
