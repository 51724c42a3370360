"""The output side of the line discipline: what programs write and what is echoed, on its way to the terminal.

Everything that goes out ends in :attr:`OutputSide.output`, which the terminal drains. Column tracking is
needed for tabs and for erasing. After Linux's do_output_char() and process_echoes().
"""

from __future__ import annotations

from asyncsentry.abi import termbits_h as abi
from asyncsentry.fs.tty.termios import Termios

OUTPUT_MAX = 1 << 16
"""Bytes kept for a terminal that does not drain them; writers wait and echoes are dropped beyond."""
TAB = 8


class OutputSide:
    """Output processing (OPOST) into a bounded buffer."""

    def __init__(self, termios: Termios) -> None:
        self.termios = termios
        self.output = bytearray()
        """Bytes for the terminal."""
        self.stopped = False
        """Whether the terminal asked for silence (^S, TCOOFF)."""
        self.column = 0

    @property
    def room(self) -> int:
        """How much more output fits; none while stopped."""
        return 0 if self.stopped else OUTPUT_MAX - len(self.output)

    def process(self, data: bytes) -> int:
        """Takes output of a program and gives how many of its bytes fitted."""
        room = self.room
        if room <= 0:
            return 0
        flags = self.termios.oflag
        if not flags & abi.OPOST:
            piece = data[:room]
            self.output += piece
            return len(piece)
        if flags & ~(abi.OPOST | abi.ONLCR) == 0 and len(data) * 2 <= room and b"\t" not in data and b"\b" not in data:
            self._process_plain(data, flags)
            return len(data)
        limit = OUTPUT_MAX
        for number, byte in enumerate(data):
            if len(self.output) + TAB > limit:
                return number
            self.put(byte)
        return len(data)

    def _process_plain(self, data: bytes, flags: int) -> None:
        """Does the common settings in bulk."""
        line_start = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        width = sum(1 for byte in data[line_start:] if byte >= 0x20 and not self._is_continuation(byte))
        self.column = width if line_start else self.column + width
        self.output += data.replace(b"\n", b"\r\n") if flags & abi.ONLCR else data

    def show(self, data: bytes) -> None:
        """Sends bytes that no program asked for as they are; dropped when the terminal does not drain."""
        if len(self.output) + len(data) <= OUTPUT_MAX:
            self.output += data

    def put(self, byte: int) -> None:
        """Processes one byte, whatever room there is; echoes come here too."""
        flags = self.termios.oflag
        if not flags & abi.OPOST:
            self.output.append(byte)
            return
        if byte == 0x0A:
            self._put_newline(flags)
        elif byte == 0x0D:
            self._put_return(flags)
        elif byte == 0x09:
            self._put_tab(flags)
        else:
            self._put_ordinary(byte, flags)

    def _put_newline(self, flags: int) -> None:
        if flags & abi.ONLRET:
            self.column = 0
        if flags & abi.ONLCR:
            self.output.append(0x0D)
            self.column = 0
        self.output.append(0x0A)

    def _put_return(self, flags: int) -> None:
        if flags & abi.ONOCR and self.column == 0:
            return
        if flags & abi.OCRNL:
            if flags & abi.ONLRET:
                self.column = 0
            self.output.append(0x0A)
            return
        self.column = 0
        self.output.append(0x0D)

    def _put_tab(self, flags: int) -> None:
        spaces = TAB - self.column % TAB
        self.column += spaces
        if flags & abi.TABDLY == abi.XTABS:
            self.output += b" " * spaces
        else:
            self.output.append(0x09)

    def _put_ordinary(self, byte: int, flags: int) -> None:
        if byte == 0x08:
            self.column = max(0, self.column - 1)
        elif byte >= 0x20 and byte != 0x7F:
            if flags & abi.OLCUC and 0x61 <= byte <= 0x7A:
                byte -= 0x20
            if not self._is_continuation(byte):
                self.column += 1
        self.output.append(byte)

    def _is_continuation(self, byte: int) -> bool:
        return bool(self.termios.iflag & abi.IUTF8) and byte & 0xC0 == 0x80

    def echo_raw(self, byte: int) -> None:
        """Echoes a byte without caret notation; dropped when the terminal does not drain."""
        if len(self.output) + TAB <= OUTPUT_MAX:
            self.put(byte)

    def echo(self, byte: int) -> None:
        """Echoes a byte, control characters as ``^X`` with ECHOCTL."""
        if self.termios.lflag & abi.ECHOCTL and (byte < 0x20 or byte == 0x7F) and byte != 0x09:
            if len(self.output) + TAB <= OUTPUT_MAX:
                self.output += bytes((0x5E, byte ^ 0x40))
                self.column += 2
        else:
            self.echo_raw(byte)

    def echo_run(self, run: bytes) -> None:
        """Echoes printing characters in bulk; what does not fit is dropped."""
        if self.termios.oflag & abi.OLCUC and self.termios.oflag & abi.OPOST:
            for byte in run:
                self.echo_raw(byte)
            return
        self.output += run[: max(0, OUTPUT_MAX - len(self.output))]
        is_utf8 = self.termios.iflag & abi.IUTF8 and not run.isascii()
        self.column += sum(byte & 0xC0 != 0x80 for byte in run) if is_utf8 else len(run)

    def rub_out(self, columns: int) -> None:
        """Takes back the last ``columns`` columns from the screen."""
        self.show(b"\b \b" * columns)
        self.column = max(0, self.column - columns)

    def back_up(self, columns: int) -> None:
        """Moves the cursor back without wiping (over a tab)."""
        self.show(b"\b" * columns)
        self.column = max(0, self.column - columns)
