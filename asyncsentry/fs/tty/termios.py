"""The settings of a terminal, and the three layouts in which guests exchange them. See termios(3)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from asyncsentry.abi import termbits_h as abi

INITIAL_CHARACTERS = bytes((3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0))
"""^C ^\\ DEL ^U ^D, VTIME 0, VMIN 1, ^Q ^S ^Z ^R ^O ^W ^V; 0 disables a character."""


@dataclass(slots=True)
class Termios:
    """Settings; what a new terminal has is what Linux gives a pseudo-terminal's slave."""

    iflag: int = abi.ICRNL | abi.IXON
    oflag: int = abi.OPOST | abi.ONLCR
    cflag: int = abi.B38400 | abi.CS8 | abi.CREAD
    lflag: int = (
        abi.ISIG | abi.ICANON | abi.ECHO | abi.ECHOE | abi.ECHOK | abi.ECHOCTL | abi.ECHOKE | abi.IEXTEN
    )  # fmt: skip
    line: int = 0
    characters: bytes = field(default=INITIAL_CHARACTERS)
    input_speed: int = 38400
    output_speed: int = 38400

    @classmethod
    def nothing(cls) -> Termios:
        """Gives settings with no bit and no character set."""
        return cls(0, 0, 0, 0, 0, bytes(len(INITIAL_CHARACTERS)), 0, 0)

    def keeping(self, old: Termios, locked: Termios) -> Termios:
        """Gives these settings with what is set in ``locked`` as in ``old``, unset_locked_termios()."""
        pairs = zip(self._flags(), old._flags(), locked._flags(), strict=True)
        iflag, oflag, cflag, lflag = (new & ~mask | before & mask for new, before, mask in pairs)
        line = old.line if locked.line else self.line
        triples = zip(self.characters, old.characters, locked.characters, strict=True)
        characters = bytes(before if is_locked else new for new, before, is_locked in triples)
        return Termios(iflag, oflag, cflag, lflag, line, characters, self.input_speed, self.output_speed)

    def _flags(self) -> tuple[int, int, int, int]:
        return self.iflag, self.oflag, self.cflag, self.lflag

    def pack(self) -> bytes:
        """Lays it out as ``struct termios``."""
        return abi.TERMIOS.pack(self.iflag, self.oflag, self.cflag, self.lflag, self.line, self.characters)

    def pack2(self) -> bytes:
        """Lays it out as ``struct termios2``."""
        return abi.TERMIOS2.pack(
            self.iflag, self.oflag, self.cflag, self.lflag, self.line, self.characters, self.input_speed,
            self.output_speed,
        )  # fmt: skip

    def pack_old(self) -> bytes:
        """Lays it out as ``struct termio``."""
        flags = (value & 0xFFFF for value in self._flags())
        return abi.TERMIO.pack(*flags, self.line, self.characters[:8])

    def from_bytes(self, data: bytes) -> Termios:
        """Gives the settings in a ``struct termios`` that a guest sent."""
        iflag, oflag, cflag, lflag, line, characters = abi.TERMIOS.unpack(data)
        speeds = _speeds(cflag, self.input_speed, self.output_speed)
        return Termios(iflag, oflag, cflag, lflag, line, characters, *speeds)

    def from_bytes2(self, data: bytes) -> Termios:
        """Gives the settings in a ``struct termios2``."""
        iflag, oflag, cflag, lflag, line, characters, input_speed, output_speed = abi.TERMIOS2.unpack(data)
        speeds = _speeds(cflag, input_speed, output_speed)
        return Termios(iflag, oflag, cflag, lflag, line, characters, *speeds)

    def from_bytes_old(self, data: bytes) -> Termios:
        """Gives these settings with the parts a ``struct termio`` holds changed."""
        *flags, line, characters = abi.TERMIO.unpack(data)
        iflag, oflag, cflag, lflag = (old & ~0xFFFF | new for old, new in zip(self._flags(), flags, strict=True))
        speeds = _speeds(cflag, self.input_speed, self.output_speed)
        return Termios(iflag, oflag, cflag, lflag, line, characters + self.characters[8:], *speeds)

    def raw(self) -> Termios:
        """Gives the settings cfmakeraw(3) makes of these."""
        iflag = self.iflag & ~(
            abi.IGNBRK | abi.BRKINT | abi.PARMRK | abi.ISTRIP | abi.INLCR | abi.IGNCR | abi.ICRNL | abi.IXON
        )
        lflag = self.lflag & ~(abi.ECHO | abi.ECHONL | abi.ICANON | abi.ISIG | abi.IEXTEN)
        return Termios(
            iflag, self.oflag & ~abi.OPOST, self.cflag & ~(abi.CSIZE | abi.PARENB) | abi.CS8, lflag, self.line,
            self.characters, self.input_speed, self.output_speed,
        )  # fmt: skip


def ordinary_run(termios: Termios) -> re.Pattern[bytes] | None:
    """Gives what matches a run of typed bytes that mean only themselves; ``None`` if each byte must be looked at.

    Printing characters, and all of UTF-8 but 0xFF, less the keys that are set.
    """
    if termios.iflag & (abi.ISTRIP | abi.IUCLC | abi.PARMRK) or termios.lflag & abi.EXTPROC:
        return None
    keys = {byte for index, byte in enumerate(termios.characters) if index not in (abi.VTIME, abi.VMIN)}
    members = bytes(byte for byte in (*range(0x20, 0x7F), *range(0x80, 0xFF)) if byte not in keys)
    return re.compile(b"[" + re.escape(members) + b"]+")


def _speeds(cflag: int, input_speed: int, output_speed: int) -> tuple[int, int]:
    """Gives the speeds a CBAUD code stands for; BOTHER keeps the numbers given."""
    code = cflag & abi.CBAUD
    if code != abi.BOTHER:
        output_speed = abi.SPEEDS.get(code, 38400)
    input_code = cflag >> abi.IBSHIFT & abi.CBAUD
    if input_code == 0:
        input_speed = output_speed
    elif input_code != abi.BOTHER:
        input_speed = abi.SPEEDS.get(input_code, output_speed)
    return input_speed, output_speed
