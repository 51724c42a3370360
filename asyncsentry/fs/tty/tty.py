"""A terminal: a line discipline, a session that may control it, and the file programs open. See tty(4).

What is at the other end (a pseudo-terminal's master, a terminal of the host) is a subclass' affair. A
hang-up makes every file opened before it useless at once: each remembers the :attr:`Tty.generation` it
was opened in.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

from asyncsentry import errnos
from asyncsentry.abi import termbits_h as abi
from asyncsentry.clock import NS_PER_SECOND, Timer
from asyncsentry.fs.file import O_NONBLOCK, File
from asyncsentry.fs.tty import ioctls
from asyncsentry.fs.tty.jobcontrol import (
    SIGCONT,
    SIGHUP,
    SIGTTIN,
    SIGTTOU,
    SIGWINCH,
    Caller,
    check_foreground,
    detach_session,
)
from asyncsentry.fs.tty.ldisc import LineDiscipline
from asyncsentry.fs.tty.termios import Termios
from asyncsentry.waiter import POLLERR, POLLHUP, READABLE, WRITABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.fs.dentry import Location
    from asyncsentry.fs.inode import Inode
    from asyncsentry.fs.tty.terminals import Terminals

DECISECOND_NS = NS_PER_SECOND // 10


class Tty:
    """One terminal as programs see it. Also the listener of its own line discipline."""

    def __init__(self, terminals: Terminals, device: int, name: str, termios: Termios | None = None) -> None:
        self.terminals = terminals
        self.device = device
        """Device number, as stat shows it in ``tty_nr``."""
        self.name = name
        """Its path, for describing it."""
        self.ldisc = LineDiscipline(termios or Termios(), self)
        self.locked = Termios.nothing()
        """The bits and characters that cannot be changed, TIOCSLCKTRMIOS."""
        self.window = (0, 0, 0, 0)
        """Rows, columns, width and height in pixels."""
        self.session: Any | None = None
        """The session it controls."""
        self.foreground: Any | None = None
        """The process group that may read and gets signals from keys."""
        self.exclusive = False
        self.opens = 0
        self.generation = 0
        self.queue = WaitQueue()

    # What the line discipline tells ---------------------------------------------------------------

    def input_changed(self) -> None:
        """Wakes readers."""
        if self.ldisc.has_input():
            self.queue.notify(READABLE)
        self.input_room_changed()

    def output_changed(self) -> None:
        """Wakes writers, and the other end."""
        if self.ldisc.screen.room > 0:
            self.queue.notify(WRITABLE)
        self.output_ready()

    def send_signal(self, signo: int) -> None:
        """Signals the foreground group."""
        if self.foreground is not None:
            self.terminals.job_control.signal_group(self.foreground, signo)

    def report(self, status: int) -> None:
        """Takes note of a change a master may want to hear of."""

    # What a subclass does with it ------------------------------------------------------------------

    def input_room_changed(self) -> None:
        """The other end may be able to send more."""

    def output_ready(self) -> None:
        """There may be output for the other end."""

    def last_closed(self) -> None:
        """No program has it open any more."""

    # Life ------------------------------------------------------------------------------------------

    def open(self, inode: Inode, flags: int, location: Location | None) -> TtyFile:
        """Opens it; EBUSY when somebody has claimed it (TIOCEXCL)."""
        self.opens += 1
        return TtyFile(self, inode, flags, location)

    def closed(self, file: TtyFile) -> None:
        """Notes that a file of it was released."""
        if file.generation == self.generation:
            self.opens -= 1
            if self.opens == 0:
                self.exclusive = False
                self.last_closed()

    def hang_up(self) -> None:
        """Hangs up: files opened so far are dead, the session loses its terminal and its leader hears SIGHUP."""
        session, jobs = self.session, self.terminals.job_control
        if session is not None:
            jobs.signal_leader(session, SIGHUP)
            jobs.signal_leader(session, SIGCONT)
        detach_session(self)
        self.generation += 1
        self.ldisc.flush_input()
        self.ldisc.change(Termios())
        had_opens, self.opens = self.opens, 0
        self.exclusive = False
        self.queue.notify(READABLE | WRITABLE | POLLERR | POLLHUP)
        if had_opens:
            self.last_closed()

    def attach(self, session: Any, group: Any) -> None:
        """Becomes the controlling terminal of a new session, with ``group`` in the foreground."""
        self.session, self.foreground = session, group
        session.terminal = self

    def session_leader_exited(self, session: Any) -> None:
        """Lets the foreground know that the session's leader has ended, disassociate_ctty() in tty_jobctrl.c.

        All our terminals are pseudo-terminals: unlike a serial line they are not hung up then.
        """
        if self.session is not session:
            return
        if self.foreground is not None:
            self.terminals.job_control.signal_group(self.foreground, SIGHUP)
        detach_session(self)

    def change_settings(self, wanted: Termios) -> None:
        """Installs settings that a program asks for, but for what is locked."""
        self.ldisc.change(wanted.keeping(self.ldisc.termios, self.locked))

    def set_window(self, window: tuple[int, int, int, int]) -> None:
        """Changes the size, telling the foreground group with SIGWINCH if it is new."""
        if window != self.window:
            self.window = window
            self.send_signal(SIGWINCH)

    # Use -------------------------------------------------------------------------------------------

    def poll(self) -> int:
        """Gives the bits that hold for an open file."""
        characters = self.ldisc.termios.characters
        minimum = 1 if characters[abi.VTIME] or self.ldisc.is_canonical else max(1, characters[abi.VMIN])
        mask = READABLE if self.ldisc.has_input(minimum) else 0
        return mask | (WRITABLE if self.ldisc.screen.room > 0 else 0)


class TtyFile(File):
    """A terminal opened by a program.

    Reading may depend on who reads: while the terminal controls a session, :meth:`try_read` itself never
    succeeds, so that transfers turn to :meth:`seen_by`, whose view knows the thread.
    """

    def __init__(self, tty: Tty, inode: Inode, flags: int, location: Location | None) -> None:
        super().__init__(inode, flags, location)
        self.tty = tty
        self.generation = tty.generation
        self.queue = tty.queue
        self._deadline_ns: int | None = None
        self._timer: Timer | None = None
        self._seen = 0

    def describe(self) -> str:
        """Gives the terminal's path."""
        return self.tty.name

    @property
    def is_hung_up(self) -> bool:
        """Whether the terminal was hung up since it was opened."""
        return self.generation != self.tty.generation

    def seen_by(self, thread: object) -> File:
        """Gives the file as this thread may use it."""
        return TtyView(self, cast(Caller, thread))

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Reads if it does not matter who does."""
        if self.tty.session is not None and not self.is_hung_up:
            raise errnos.WouldBlock
        return self.read_now(count)

    def read_now(self, count: int) -> bytes:
        """Reads what is there, minding VMIN and VTIME."""
        if self.is_hung_up:
            return b""
        ldisc = self.tty.ldisc
        if ldisc.is_canonical:
            return ldisc.read(count)
        characters = ldisc.termios.characters
        return self._read_raw(count, characters[abi.VMIN], characters[abi.VTIME] * DECISECOND_NS)

    def _read_raw(self, count: int, minimum: int, timeout_ns: int) -> bytes:
        ldisc, available = self.tty.ldisc, len(self.tty.ldisc.buffer)
        needed = min(max(minimum, 1), count)
        is_enough = available >= needed or (available > 0 and bool(self.flags & O_NONBLOCK))
        if is_enough or (minimum == 0 and timeout_ns == 0):
            self._stop_timer()
            return ldisc.read(count) if available else b""
        if self.flags & O_NONBLOCK or not timeout_ns or (minimum and not available):
            raise errnos.WouldBlock
        return self._read_timed(count, available, timeout_ns)

    def _read_timed(self, count: int, available: int, timeout_ns: int) -> bytes:
        """Waits for more until VTIME has passed (with VMIN: since the last byte); then gives what there is."""
        clock = self.tty.terminals.clock
        now_ns = clock.now_ns()
        if self._deadline_ns is not None and now_ns >= self._deadline_ns:
            self._stop_timer()
            return self.tty.ldisc.read(count) if available else b""
        if self._deadline_ns is None or available != self._seen:
            self._stop_timer()
            self._seen = available
            self._deadline_ns = now_ns + timeout_ns
            self._timer = clock.call_at(self._deadline_ns, self._timer_ran)
        raise errnos.WouldBlock

    def _timer_ran(self) -> None:
        if self.queue:
            self.queue.notify(READABLE)
        else:
            self._deadline_ns = None  # the reader was interrupted; the next one starts afresh

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._deadline_ns = None

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Writes if it does not matter who does."""
        tty = self.tty
        if tty.session is not None and tty.ldisc.termios.lflag & abi.TOSTOP and not self.is_hung_up:
            raise errnos.WouldBlock
        return self.write_now(data)

    def write_now(self, data: bytes) -> int:
        """Writes what fits."""
        if self.is_hung_up:
            raise errnos.EIO("the terminal was hung up")
        return self.tty.ldisc.write(data)

    def poll(self) -> int:
        """Gives the terminal's bits; after a hang-up everything is ready, and in error."""
        if self.is_hung_up:
            return READABLE | WRITABLE | POLLERR | POLLHUP
        return self.tty.poll()

    def ioctl(self, thread: object, request: int, argument: int) -> int | Awaitable[int]:
        """Answers the terminal's control calls; EIO after a hang-up."""
        if self.is_hung_up:
            raise errnos.EIO("the terminal was hung up")
        return ioctls.answer(ioctls.Call(self.tty, self, cast(Caller, thread), argument, False), request)

    async def sync(self, data_only: bool = False) -> None:
        """Refuses, fsync(2)."""
        raise errnos.EINVAL("a terminal cannot be synchronised")

    async def release(self) -> None:
        """Closes the terminal."""
        self._stop_timer()
        self.tty.closed(self)


class TtyView(File):
    """A terminal as one thread uses it: job control is checked once, before the first byte."""

    def __init__(self, file: TtyFile, caller: Caller) -> None:
        super().__init__(file.inode, file.flags, file.location)
        self.file = file
        self.caller = caller
        self.queue = file.queue
        self._is_checked = False

    def _check(self, signo: int) -> None:
        if not self._is_checked and not self.file.is_hung_up:
            check_foreground(self.file.tty, self.caller, signo)
        self._is_checked = True

    def describe(self) -> str:
        """Gives the terminal's path."""
        return self.file.describe()

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Reads; SIGTTIN for background processes."""
        self._check(SIGTTIN)
        return self.file.read_now(count)

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Writes; SIGTTOU for background processes with TOSTOP."""
        if self.file.tty.ldisc.termios.lflag & abi.TOSTOP:
            self._check(SIGTTOU)
        return self.file.write_now(data)

    def unread(self, data: bytes) -> None:
        """Loses what could not be delivered, as Linux does."""

    def poll(self) -> int:
        """Gives the terminal's bits."""
        return self.file.poll()

    def ioctl(self, thread: object, request: int, argument: int) -> int | Awaitable[int]:
        """Answers as the file does."""
        return self.file.ioctl(thread, request, argument)
