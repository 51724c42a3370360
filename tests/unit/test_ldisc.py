"""The line discipline, byte by byte: what is typed, what is shown, what a program reads."""

from __future__ import annotations

from operator import attrgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsentry.abi import termbits_h as abi
from asyncsentry.errnos import WouldBlock
from asyncsentry.fs.tty.ldisc import INPUT_MAX, LINE_MAX, LineDiscipline
from asyncsentry.fs.tty.output import OUTPUT_MAX
from asyncsentry.fs.tty.termios import Termios

CTRL_C, CTRL_D, CTRL_Q, CTRL_R, CTRL_S, CTRL_U, CTRL_V, CTRL_W, CTRL_Z = (
    bytes((ord(letter) & 0x1F,)) for letter in "CDQRSUVWZ"
)
DELETE = b"\x7f"


class Terminal(LineDiscipline):
    """A line discipline with somebody who listens."""

    def __init__(self, **changes: int) -> None:
        self.signals: list[int] = []
        self.reports: list[int] = []
        super().__init__(Termios(**changes), self)  # type: ignore[arg-type]

    def input_changed(self) -> None: ...

    def output_changed(self) -> None: ...

    def send_signal(self, signo: int) -> None:
        self.signals.append(signo)

    def report(self, status: int) -> None:
        self.reports.append(status)

    def shown(self) -> bytes:
        return self.take_output(1 << 20)


def raw() -> Terminal:
    terminal = Terminal()
    terminal.change(Termios().raw())
    terminal.reports.clear()
    return terminal


def test_a_line_is_read_once_it_is_finished() -> None:
    terminal = Terminal()
    terminal.receive(b"ls")
    with pytest.raises(WouldBlock):
        terminal.read(100)
    terminal.receive(b"\r")
    assert terminal.read(100) == b"ls\n"
    assert terminal.shown() == b"ls\r\n"


def test_a_read_gives_one_line_and_keeps_the_rest_of_a_long_one() -> None:
    terminal = Terminal()
    terminal.receive(b"one\ntwo\n")
    assert terminal.readable_bytes() == 8
    assert terminal.read(2) == b"on"
    assert terminal.read(100) == b"e\n"
    assert terminal.read(100) == b"two\n"


def test_end_of_file_key_ends_a_line_without_a_byte() -> None:
    terminal = Terminal()
    terminal.receive(b"abc" + CTRL_D)
    assert terminal.read(3) == b"abc"
    assert not terminal.has_input()
    terminal.receive(CTRL_D)
    assert terminal.read(100) == b""


@pytest.mark.parametrize(
    ("typed", "line", "shown"),
    [
        (b"abx" + DELETE + b"c\n", b"abc\n", b"abx\b \bc\r\n"),
        (DELETE + b"a\n", b"a\n", b"a\r\n"),
        (b"a\x01" + DELETE + b"\n", b"a\n", b"a^A\b \b\b \b\r\n"),
        (b"one two" + CTRL_W + b"2\n", b"one 2\n", b"one two" + b"\b \b" * 3 + b"2\r\n"),
        (b"one two  " + CTRL_W + b"\n", b"one \n", b"one two  " + b"\b \b" * 5 + b"\r\n"),
        (b"bad" + CTRL_U + b"good\n", b"good\n", b"bad" + b"\b \b" * 3 + b"good\r\n"),
        (b"a\tb" + DELETE * 2 + b"\n", b"a\n", b"a\tb\b \b" + b"\b" * 7 + b"\r\n"),
        (CTRL_V + CTRL_C + b"\n", b"\x03\n", b"^\b^C\r\n"),
        (b"ab" + CTRL_R + b"\n", b"ab\n", b"ab^R\r\nab\r\n"),
    ],
)
def test_editing(typed: bytes, line: bytes, shown: bytes) -> None:
    terminal = Terminal()
    terminal.receive(typed)
    assert terminal.read(100) == line
    assert terminal.shown() == shown


def test_a_character_of_several_bytes_is_erased_whole() -> None:
    terminal = Terminal(iflag=abi.ICRNL | abi.IUTF8)
    terminal.receive("né".encode() + DELETE + b"\n")
    assert terminal.read(100) == b"n\n"
    assert terminal.shown() == "né".encode() + b"\b \b\r\n"


def test_kill_without_echoke_starts_a_new_line() -> None:
    terminal = Terminal(lflag=abi.ICANON | abi.ECHO | abi.ECHOK | abi.ECHOCTL)
    terminal.receive(b"bad" + CTRL_U + b"ok\n")
    assert terminal.read(100) == b"ok\n"
    assert terminal.shown() == b"bad^U\r\nok\r\n"


def test_a_printing_terminal_shows_what_was_erased() -> None:
    terminal = Terminal(lflag=abi.ICANON | abi.ECHO | abi.ECHOE | abi.ECHOPRT)
    terminal.receive(b"abc" + DELETE * 2 + b"d\n")
    assert terminal.read(100) == b"ad\n"
    assert terminal.shown() == b"abc\\cb/d\r\n"


def test_echo_off_shows_nothing_but_newlines_with_echonl() -> None:
    terminal = Terminal(lflag=abi.ICANON | abi.ECHONL)
    terminal.receive(b"secret" + DELETE + b"\n")
    assert terminal.read(100) == b"secre\n"
    assert terminal.shown() == b"\r\n"


def test_interrupt_keys_send_signals_and_flush_what_was_typed() -> None:
    terminal = Terminal()
    terminal.receive(b"rm -rf" + CTRL_C)
    terminal.receive(CTRL_Z + b"\x1c")
    assert terminal.signals == [2, 20, 3]
    terminal.receive(b"ls\n")
    assert terminal.read(100) == b"ls\n"
    assert terminal.shown() == b"^\\ls\r\n"


def test_noflsh_keeps_what_was_typed() -> None:
    terminal = Terminal(lflag=abi.ICANON | abi.ISIG | abi.NOFLSH)
    terminal.receive(b"a" + CTRL_C + b"b\n")
    assert terminal.signals == [2]
    assert terminal.read(100) == b"ab\n"


def test_flow_keys_hold_output_back() -> None:
    terminal = Terminal()
    terminal.receive(CTRL_S)
    with pytest.raises(WouldBlock):
        terminal.write(b"quiet")
    assert terminal.shown() == b""
    terminal.receive(CTRL_Q)
    assert terminal.write(b"loud") == 4
    assert terminal.shown() == b"loud"
    assert terminal.reports == [abi.TIOCPKT_STOP, abi.TIOCPKT_START]


def test_any_key_restarts_output_with_ixany() -> None:
    terminal = Terminal(iflag=abi.IXON | abi.IXANY)
    terminal.receive(CTRL_S + b"x")
    assert not terminal.screen.stopped


@pytest.mark.parametrize(
    ("iflag", "typed", "got"),
    [
        (abi.ICRNL, b"a\r", b"a\n"),
        (abi.IGNCR, b"\ra\n", b"a\n"),
        (abi.INLCR | abi.ICRNL, b"a\nb\r", b"a\rb\n"),
        (abi.ISTRIP, b"\xe1\n", b"a\n"),
        (abi.IUCLC, b"ABC\n", b"abc\n"),
        (abi.PARMRK, b"\xff\n", b"\xff\xff\n"),
    ],
)
def test_input_translation(iflag: int, typed: bytes, got: bytes) -> None:
    terminal = Terminal(iflag=iflag)
    terminal.receive(typed)
    assert terminal.read(100) == got


@pytest.mark.parametrize(
    ("oflag", "written", "shown"),
    [
        (0, b"a\nb\tc", b"a\nb\tc"),
        (abi.OPOST | abi.ONLCR, b"a\nb", b"a\r\nb"),
        (abi.OPOST | abi.OCRNL, b"a\rb", b"a\nb"),
        (abi.OPOST | abi.ONOCR, b"\ra\rb", b"a\rb"),
        (abi.OPOST | abi.OLCUC, b"abC\n", b"ABC\n"),
        (abi.OPOST | abi.XTABS, b"a\tb", b"a       b"),
        (abi.OPOST | abi.ONLCR | abi.XTABS, b"abc\n\tb", b"abc\r\n        b"),
    ],
)
def test_output_processing(oflag: int, written: bytes, shown: bytes) -> None:
    terminal = Terminal(oflag=oflag)
    assert terminal.write(written) == len(written)
    assert terminal.shown() == shown


def test_raw_input_passes_everything_at_once() -> None:
    terminal = raw()
    data = bytes(range(256))
    assert terminal.receive(data) == 256
    assert terminal.read(1000) == data
    assert terminal.shown() == b""
    assert terminal.signals == []


def test_typed_ahead_text_stays_readable_across_a_change_of_mode() -> None:
    terminal = Terminal()
    terminal.receive(b"half")
    terminal.change(Termios().raw())
    assert terminal.read(2) == b"ha"
    terminal.change(Termios())
    assert terminal.read(100) == b"lf"


def test_a_line_holds_4095_bytes_and_its_end_still_counts() -> None:
    terminal = Terminal(lflag=abi.ICANON)
    for _ in range(3):
        assert terminal.receive(b"x" * INPUT_MAX) == INPUT_MAX
    terminal.receive(b"\n")
    line = terminal.read(10000)
    assert len(line) == LINE_MAX + 1
    assert line.endswith(b"\n")


def test_a_full_buffer_makes_the_terminal_wait() -> None:
    terminal = raw()
    assert terminal.receive(b"x" * (INPUT_MAX + 10)) == INPUT_MAX
    assert terminal.receive(b"y") == 0
    terminal.read(1)
    assert terminal.receive(b"y") == 1


def test_output_nobody_drains_makes_writers_wait() -> None:
    terminal = raw()
    assert terminal.write(b"x" * (OUTPUT_MAX + 10)) == OUTPUT_MAX
    with pytest.raises(WouldBlock):
        terminal.write(b"y")


def test_a_break_interrupts_with_brkint() -> None:
    terminal = Terminal(iflag=abi.BRKINT)
    terminal.receive_break()
    assert terminal.signals == [2]


@given(st.lists(st.binary(max_size=300), max_size=30), st.integers(0, 0o77777), st.integers(0, 0o177),
       st.integers(0, 0o577777))
def test_hostile_settings_and_bytes_never_break_it(pieces: list[bytes], iflag: int, oflag: int, lflag: int) -> None:
    terminal = Terminal(iflag=iflag, oflag=oflag, lflag=lflag)
    for piece in pieces:
        terminal.receive(piece)
        if terminal.has_input():
            terminal.read(50)
        assert len(terminal.buffer) <= 2 * INPUT_MAX + 2
        assert len(terminal.screen.output) <= OUTPUT_MAX + 16
        assert 0 <= terminal.edit_start <= len(terminal.buffer)


@given(st.lists(st.sampled_from([b"a", b"bc ", b"\t", DELETE, CTRL_W, CTRL_U, b"\n", CTRL_D]), max_size=40))
def test_what_was_not_erased_is_read(keys: list[bytes]) -> None:
    terminal = Terminal()
    for key in keys:
        terminal.receive(key)
    terminal.receive(b"\n")
    text = b""
    while terminal.has_input():
        text += terminal.read(4096)
    assert DELETE not in text
    assert text.endswith(b"\n")
    assert not terminal.buffer


@given(st.lists(st.sampled_from([b"abc", "é".encode(), b"\t", DELETE, CTRL_W, CTRL_V, CTRL_S, CTRL_Q, b"\r", b"\xff"]),
                max_size=60), st.integers(0, 0o77777))
def test_typing_fast_is_typing_slowly(keys: list[bytes], iflag: int) -> None:
    slow, fast = Terminal(iflag=iflag), Terminal(iflag=iflag)
    text = b"".join(keys)
    for byte in text:
        slow.receive(bytes((byte,)))
    fast.receive(text)
    for part in ("buffer", "screen.output", "screen.column"):
        assert attrgetter(part)(fast) == attrgetter(part)(slow)


def test_a_terminal_that_shows_nothing_is_not_sent_more_without_end() -> None:
    terminal = Terminal()
    terminal.write(b"x" * OUTPUT_MAX)
    for _ in range(OUTPUT_MAX):
        terminal.receive(b"\t" + DELETE + CTRL_V + CTRL_V + DELETE)
    assert len(terminal.screen.output) <= OUTPUT_MAX


def test_ends_of_file_nobody_reads_make_the_terminal_wait() -> None:
    terminal = Terminal()
    assert terminal.receive(CTRL_D * (4 * INPUT_MAX)) < 3 * INPUT_MAX
    assert terminal.receive(CTRL_D) == 0
    assert terminal.read(1) == b""
    assert terminal.receive(CTRL_D) == 1
