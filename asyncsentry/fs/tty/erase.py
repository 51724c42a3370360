"""Editing the line being typed: erasing characters, words and lines, and showing it anew. After n_tty.c's eraser()."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import termbits_h as abi
from asyncsentry.fs.tty.output import TAB

if TYPE_CHECKING:
    from asyncsentry.fs.tty.ldisc import LineDiscipline


def _is_control(byte: int) -> bool:
    return byte < 0x20 or byte == 0x7F


def _is_word(byte: int) -> bool:
    return byte == 0x5F or byte >= 0x80 or chr(byte).isalnum()


class Eraser:
    """Line editing on behalf of one line discipline."""

    def __init__(self, ldisc: LineDiscipline) -> None:
        self._ldisc = ldisc
        self._showing_erased = False
        """Whether erased characters are being printed between \\ and / (ECHOPRT)."""

    @property
    def _flags(self) -> int:
        return self._ldisc.termios.lflag

    @property
    def _is_empty(self) -> bool:
        return len(self._ldisc.buffer) <= self._ldisc.edit_start

    def forget(self) -> None:
        """Starts over with an empty line."""
        self._showing_erased = False

    def finish(self) -> None:
        """Closes the printing of erased characters."""
        if self._showing_erased:
            self._ldisc.screen.echo_raw(0x2F)
            self._showing_erased = False

    def erase_character(self) -> None:
        """Takes back one character."""
        if not self._is_empty:
            self._erase_one(abi.VERASE)
            self._close_if_empty()

    def erase_word(self) -> None:
        """Takes back blanks and then a word."""
        if self._is_empty:
            return
        seen_word = False
        while not self._is_empty:
            is_word = _is_word(self._ldisc.buffer[-1])
            if seen_word and not is_word:
                break
            seen_word = seen_word or is_word
            self._erase_one(abi.VWERASE)
        self._close_if_empty()

    def kill_line(self) -> None:
        """Takes back the whole line, wiping it from the screen if ECHOK, ECHOKE and ECHOE ask for that."""
        if self._is_empty:
            return
        ldisc, flags = self._ldisc, self._flags
        if flags & abi.ECHO and flags & abi.ECHOK and flags & abi.ECHOKE and flags & abi.ECHOE:
            while not self._is_empty:
                self._erase_one(abi.VKILL)
            self._close_if_empty()
            return
        del ldisc.buffer[ldisc.edit_start :]
        if flags & abi.ECHO:
            self.finish()
            ldisc.screen.echo(ldisc.termios.characters[abi.VKILL])
            if flags & abi.ECHOK:
                ldisc.screen.echo_raw(0x0A)

    def reprint(self, key: int) -> None:
        """Shows the line again on a new one."""
        ldisc = self._ldisc
        self.finish()
        ldisc.screen.echo(key)
        ldisc.screen.echo_raw(0x0A)
        for byte in ldisc.buffer[ldisc.edit_start :]:
            ldisc.screen.echo(byte)

    def _close_if_empty(self) -> None:
        if self._is_empty and self._flags & abi.ECHO:
            self.finish()

    def _erase_one(self, kind: int) -> None:
        removed = self._take_character()
        flags = self._flags
        if not flags & abi.ECHO or not removed:
            return
        byte, screen = removed[0], self._ldisc.screen
        if flags & abi.ECHOPRT:
            if not self._showing_erased:
                screen.echo_raw(0x5C)
                self._showing_erased = True
            screen.echo(byte)
            for rest in removed[1:]:
                screen.echo_raw(rest)
        elif kind == abi.VERASE and not flags & abi.ECHOE:
            screen.echo(self._ldisc.termios.characters[abi.VERASE])
        elif byte == 0x09:
            screen.back_up(self._width_of_last_tab())
        elif _is_control(byte):
            screen.rub_out(2 if flags & abi.ECHOCTL else 0)
        else:
            screen.rub_out(1)

    def _take_character(self) -> bytes:
        """Removes the last character, all bytes of it in UTF-8."""
        ldisc = self._ldisc
        start = len(ldisc.buffer) - 1
        if ldisc.termios.iflag & abi.IUTF8:
            while start > ldisc.edit_start and ldisc.buffer[start] & 0xC0 == 0x80:
                start -= 1
        removed = bytes(ldisc.buffer[start:])
        del ldisc.buffer[start:]
        return removed

    def _width_of_last_tab(self) -> int:
        """Works out how far the tab just removed had moved, from what stands before it in the line."""
        ldisc = self._ldisc
        column = 0
        line = ldisc.buffer[ldisc.edit_start :]
        tab = line.rfind(0x09)
        if tab < 0:
            column = ldisc.edit_column
        for byte in line[tab + 1 :]:
            if _is_control(byte):
                column += 2 if self._flags & abi.ECHOCTL else 0
            elif not (ldisc.termios.iflag & abi.IUTF8 and byte & 0xC0 == 0x80):
                column += 1
        return TAB - column % TAB
