"""The N_TTY line discipline: what a terminal does with keys typed and text printed. See termios(3).

Pure and synchronous: bytes from the terminal go in through :meth:`LineDiscipline.receive`, programs use
:meth:`~LineDiscipline.read` and :meth:`~LineDiscipline.write`, and what the terminal shall show gathers in
``screen.output``. Who must be told of changes is a :class:`Listener`. After Linux's n_tty.c.

The input buffer holds finished lines, then the line being edited. A line's end is known by its position,
so that VEOF, which leaves no byte behind, ends one too.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from asyncsentry.abi import termbits_h as abi
from asyncsentry.errnos import WouldBlock
from asyncsentry.fs.tty.erase import Eraser
from asyncsentry.fs.tty.output import OutputSide
from asyncsentry.fs.tty.termios import Termios, ordinary_run

INPUT_MAX = 4096
LINE_MAX = 4095
"""Bytes of a line beyond which keys are dropped, termios(3) "Canonical and noncanonical mode"."""
SIGINT, SIGQUIT, SIGTSTP = 2, 3, 20
_DISABLED = 0


class Listener(Protocol):
    """Who owns the line discipline and hears of what happens in it."""

    def input_changed(self) -> None:
        """There may be input to read, or room for more."""

    def output_changed(self) -> None:
        """There is output to show, or room for more."""

    def send_signal(self, signo: int) -> None:
        """The foreground group is to get a signal."""

    def report(self, status: int) -> None:
        """Something a master in packet mode is told (``TIOCPKT_*``)."""


class LineDiscipline:
    """One terminal's line discipline."""

    def __init__(self, termios: Termios, listener: Listener) -> None:
        self.termios = termios
        self.listener = listener
        self.screen = OutputSide(termios)
        self.buffer = bytearray()
        """Input not read yet: finished lines, then what is being edited."""
        self._consumed = 0
        self._lines: deque[int] = deque()
        """Where each finished line ends, counted from the first byte ever received."""
        self.edit_start = 0
        """Where in :attr:`buffer` the line being edited begins (canonical mode)."""
        self._literal_next = False
        self._ordinary = ordinary_run(termios)
        self._eraser = Eraser(self)
        self.edit_column = 0
        """The column the line being edited began in."""

    # Settings --------------------------------------------------------------------------------------

    def change(self, termios: Termios) -> None:
        """Installs settings; input already there stays readable in the new mode."""
        old, self.termios, self.screen.termios = self.termios, termios, termios
        self._ordinary = ordinary_run(termios)
        if (old.lflag ^ termios.lflag) & abi.ICANON:
            self._lines.clear()
            if termios.lflag & abi.ICANON and self.buffer:
                self._lines.append(self._consumed + len(self.buffer))
            self.edit_start = len(self.buffer)
            self._literal_next = False
        if self.screen.stopped and not termios.iflag & abi.IXON and old.iflag & abi.IXON:
            self.start_output()
        self._report_flow_keys(old, termios)
        self.listener.input_changed()

    def _report_flow_keys(self, old: Termios, new: Termios) -> None:
        was, now = _has_usual_flow_keys(old), _has_usual_flow_keys(new)
        if was != now:
            self.listener.report(abi.TIOCPKT_DOSTOP if now else abi.TIOCPKT_NOSTOP)

    @property
    def is_canonical(self) -> bool:
        """Whether input is read line by line."""
        return bool(self.termios.lflag & abi.ICANON)

    def key(self, index: int) -> int:
        """Gives a control character, ``-1`` if it is disabled."""
        value = self.termios.characters[index]
        return -1 if value == _DISABLED else value

    # Reading ---------------------------------------------------------------------------------------

    def readable_bytes(self) -> int:
        """Gives what FIONREAD tells: bytes of finished lines, or all of them in raw mode."""
        if not self.is_canonical:
            return len(self.buffer)
        return self._lines[-1] - self._consumed if self._lines else 0

    def has_input(self, at_least: int = 1) -> bool:
        """Whether a read would find something: a finished line, or ``at_least`` bytes in raw mode."""
        return bool(self._lines) if self.is_canonical else len(self.buffer) >= at_least

    def read(self, count: int) -> bytes:
        """Gives up to ``count`` bytes, in canonical mode of one line; WouldBlock if there are none."""
        if not self.is_canonical:
            if not self.buffer:
                raise WouldBlock
            data = bytes(self.buffer[:count])
            self._drop(len(data))
        else:
            data = self._read_line(count)
        self.listener.input_changed()
        return data

    def _read_line(self, count: int) -> bytes:
        if not self._lines:
            raise WouldBlock
        length = self._lines[0] - self._consumed
        data = bytes(self.buffer[: min(count, length)])
        if len(data) == length:
            self._lines.popleft()
        self._drop(len(data))
        return data

    def _drop(self, count: int) -> None:
        del self.buffer[:count]
        self._consumed += count
        self.edit_start = max(0, self.edit_start - count)

    # Input from the terminal -----------------------------------------------------------------------

    def input_room(self) -> int:
        """Gives how many bytes the terminal may send now.

        With no finished line, canonical mode takes anything: what exceeds the line is dropped, for nobody
        could make room by reading.
        """
        if self.is_canonical and not self._lines:
            return INPUT_MAX
        return INPUT_MAX - max(len(self.buffer), len(self._lines))  # VEOF ends lines that have no bytes

    def receive(self, data: bytes) -> int:
        """Takes bytes from the terminal and gives how many; the rest must wait for a reader."""
        accepted = 0
        while accepted < len(data):
            room = self.input_room()
            if room <= 0:
                break
            piece = data[accepted : accepted + room]
            if self._is_transparent:
                self.buffer += piece
            else:
                self._receive_piece(piece)
            accepted += len(piece)
        if accepted:
            self.listener.input_changed()
            self.listener.output_changed()
        return accepted

    def _receive_piece(self, piece: bytes) -> None:
        """Takes runs of ordinary bytes at once (pasted text) and looks at the others one by one."""
        position = 0
        while position < len(piece):
            run = None
            if self._ordinary is not None and not self._literal_next and not self.screen.stopped:
                run = self._ordinary.match(piece, position)
            if run is None:
                self._receive_byte(piece[position])
                position += 1
            else:
                self._receive_run(run.group())
                position = run.end()

    def _receive_run(self, run: bytes) -> None:
        if self.termios.lflag & abi.ECHO:
            self._eraser.finish()
            if self.edit_start == len(self.buffer):
                self.edit_column = self.screen.column
            self.screen.echo_run(run)
        room = LINE_MAX - (len(self.buffer) - self.edit_start) if self.is_canonical else INPUT_MAX - len(self.buffer)
        self.buffer += run[: max(0, room)]
        if len(run) > room and self.termios.iflag & abi.IMAXBEL:
            self.screen.echo_raw(0x07)

    @property
    def _is_transparent(self) -> bool:
        flags = self.termios
        processed = abi.ISTRIP | abi.IUCLC | abi.IGNCR | abi.ICRNL | abi.INLCR | abi.IXON | abi.PARMRK
        interpreted = abi.ICANON | abi.ISIG | abi.ECHO | abi.ECHONL | abi.IEXTEN
        return not flags.iflag & processed and not flags.lflag & interpreted

    def _receive_byte(self, byte: int) -> None:
        iflag, lflag = self.termios.iflag, self.termios.lflag
        if iflag & abi.ISTRIP:
            byte &= 0x7F
        if iflag & abi.IUCLC and lflag & abi.IEXTEN and 0x41 <= byte <= 0x5A:
            byte += 0x20
        if lflag & abi.EXTPROC:
            self._store(byte)
            return
        if self._literal_next:
            self._literal_next = False
            self._receive_ordinary(byte)
        elif not self._control_flow(byte) and not self._make_signal(byte):
            self._receive_translated(byte)

    def _control_flow(self, byte: int) -> bool:
        iflag = self.termios.iflag
        if not iflag & abi.IXON:
            return False
        if byte == self.key(abi.VSTART):
            self.start_output()
            return True
        if byte == self.key(abi.VSTOP):
            self.stop_output()
            return True
        return False

    def _make_signal(self, byte: int) -> bool:
        if not self.termios.lflag & abi.ISIG:
            return False
        for index, signo in ((abi.VINTR, SIGINT), (abi.VQUIT, SIGQUIT), (abi.VSUSP, SIGTSTP)):
            if byte == self.key(index):
                self.interrupt(signo)
                if self.termios.iflag & abi.IXON:
                    self.start_output()
                if self.termios.lflag & abi.ECHO:
                    self.screen.echo(byte)
                return True
        return False

    def interrupt(self, signo: int) -> None:
        """Sends a signal, forgetting what was typed and not yet shown unless NOFLSH is set."""
        if not self.termios.lflag & abi.NOFLSH:
            self.flush_input()
            self.flush_output()
        self.listener.send_signal(signo)

    def _receive_translated(self, byte: int) -> None:
        iflag = self.termios.iflag
        if self.screen.stopped and iflag & abi.IXON and iflag & abi.IXANY:
            self.start_output()
        if byte == 0x0D:
            if iflag & abi.IGNCR:
                return
            if iflag & abi.ICRNL:
                byte = 0x0A
        elif byte == 0x0A and iflag & abi.INLCR:
            byte = 0x0D
        if not self.is_canonical or not self._edit(byte):
            self._receive_ordinary(byte)

    def _edit(self, byte: int) -> bool:
        """Does what canonical mode does with special characters; says whether ``byte`` was one."""
        lflag = self.termios.lflag
        extended = bool(lflag & abi.IEXTEN)
        if byte == self.key(abi.VERASE):
            self._eraser.erase_character()
        elif byte == self.key(abi.VKILL):
            self._eraser.kill_line()
        elif extended and byte == self.key(abi.VWERASE):
            self._eraser.erase_word()
        elif extended and byte == self.key(abi.VLNEXT):
            self._begin_literal()
        elif extended and lflag & abi.ECHO and byte == self.key(abi.VREPRINT):
            self._eraser.reprint(byte)
        elif byte == 0x0A:
            if lflag & (abi.ECHO | abi.ECHONL):
                self.screen.echo_raw(byte)
            self._finish_line(byte)
        elif byte == self.key(abi.VEOF):
            self._finish_line(None)
        elif byte == self.key(abi.VEOL) or (extended and byte == self.key(abi.VEOL2)):
            self._echo(byte)
            self._finish_line(byte)
        else:
            return False
        return True

    def _begin_literal(self) -> None:
        self._literal_next = True
        if self.termios.lflag & abi.ECHO:
            self._eraser.finish()
            if self.termios.lflag & abi.ECHOCTL:
                self.screen.show(b"^\b")

    def _finish_line(self, terminator: int | None) -> None:
        if terminator is not None:
            self._store(terminator, ends_line=True)
        self._lines.append(self._consumed + len(self.buffer))
        self.edit_start = len(self.buffer)

    def _receive_ordinary(self, byte: int) -> None:
        if self.termios.lflag & abi.ECHO:
            self._eraser.finish()
            if byte == 0x0A:
                self.screen.echo_raw(byte)
            else:
                self._echo(byte)
        self._store(byte)

    def _echo(self, byte: int) -> None:
        if self.termios.lflag & abi.ECHO:
            if self.edit_start == len(self.buffer):
                self.edit_column = self.screen.column
            self.screen.echo(byte)

    def _store(self, byte: int, ends_line: bool = False) -> None:
        limit = LINE_MAX + 1 if ends_line else LINE_MAX if self.is_canonical else INPUT_MAX
        if len(self.buffer) - self.edit_start * self.is_canonical >= limit:
            if self.termios.iflag & abi.IMAXBEL:
                self.screen.echo_raw(0x07)
            return
        if byte == 0xFF and self.termios.iflag & abi.PARMRK and not self.termios.iflag & abi.ISTRIP:
            self.buffer.append(byte)
        self.buffer.append(byte)

    def receive_break(self) -> None:
        """Takes a break condition from the line."""
        iflag = self.termios.iflag
        if iflag & abi.IGNBRK:
            return
        if iflag & abi.BRKINT:
            self.interrupt(SIGINT)
            return
        self.buffer += b"\xff\x00\x00" if iflag & abi.PARMRK else b"\x00"
        self.listener.input_changed()

    # Output of programs ----------------------------------------------------------------------------

    def write(self, data: bytes) -> int:
        """Takes output of a program and gives how much; WouldBlock if none fits."""
        written = self.screen.process(data)
        if not written and data:
            raise WouldBlock
        self.listener.output_changed()
        return written

    def take_output(self, count: int) -> bytes:
        """Gives the terminal up to ``count`` bytes to show."""
        if self.screen.stopped:
            return b""
        data = bytes(self.screen.output[:count])
        del self.screen.output[: len(data)]
        if data:
            self.listener.output_changed()
        return data

    # Flow and flushing -----------------------------------------------------------------------------

    def stop_output(self) -> None:
        """Holds output back (^S, TCOOFF)."""
        if not self.screen.stopped:
            self.screen.stopped = True
            self.listener.report(abi.TIOCPKT_STOP)

    def start_output(self) -> None:
        """Lets output go on (^Q, TCOON)."""
        if self.screen.stopped:
            self.screen.stopped = False
            self.listener.report(abi.TIOCPKT_START)
            self.listener.output_changed()

    def flush_input(self) -> None:
        """Forgets input nobody has read."""
        self._consumed += len(self.buffer)
        self.buffer.clear()
        self._lines.clear()
        self.edit_start = 0
        self._literal_next = False
        self._eraser.forget()
        self.listener.report(abi.TIOCPKT_FLUSHREAD)
        self.listener.input_changed()

    def flush_output(self) -> None:
        """Forgets output not shown yet."""
        self.screen.output.clear()
        self.listener.report(abi.TIOCPKT_FLUSHWRITE)
        self.listener.output_changed()


def _has_usual_flow_keys(termios: Termios) -> bool:
    keys = termios.characters
    return bool(termios.iflag & abi.IXON) and keys[abi.VSTOP] == 0x13 and keys[abi.VSTART] == 0x11
