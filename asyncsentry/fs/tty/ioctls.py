"""Control calls of terminals. See ioctl_tty(2); after Linux's tty_io.c, tty_ioctl.c and tty_jobctrl.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from asyncsentry import errnos
from asyncsentry.abi import ioctls_h as io
from asyncsentry.abi import termbits_h as abi
from asyncsentry.abi.capability_h import CAP_SYS_ADMIN
from asyncsentry.fs.tty import jobcontrol as jobs

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.fs.tty.tty import Tty

N_TTY = 0


class Call(NamedTuple):
    """One control call: ``tty`` is what it is about, ``file`` what it came through."""

    tty: Tty
    file: File
    caller: jobs.Caller
    argument: int
    is_master: bool

    @property
    def number(self) -> int:
        """The argument as a C ``int``."""
        return ((self.argument & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000

    def fetch_int(self) -> int:
        """Reads the ``int`` the argument points to."""
        return int.from_bytes(self.caller.memory.read(self.argument, 4), "little", signed=True)

    def store_int(self, value: int) -> int:
        """Writes an ``int`` where the argument points; gives 0."""
        self.caller.memory.write(self.argument, (value & 0xFFFFFFFF).to_bytes(4, "little"))
        return 0


def answer(call: Call, request: int) -> int:
    """Answers a call; ENOTTY for one terminals do not know."""
    handler = HANDLERS.get(request & 0xFFFFFFFF)
    if handler is None:
        raise errnos.ENOTTY(f"terminals have no ioctl {request:#x}")
    return handler(call)


def _get_settings(call: Call) -> int:
    call.caller.memory.write(call.argument, call.tty.ldisc.termios.pack())
    return 0


def _get_settings2(call: Call) -> int:
    call.caller.memory.write(call.argument, call.tty.ldisc.termios.pack2())
    return 0


def _get_settings_old(call: Call) -> int:
    call.caller.memory.write(call.argument, call.tty.ldisc.termios.pack_old())
    return 0


def _check_change(call: Call) -> None:
    jobs.check_foreground(call.tty, call.caller, jobs.SIGTTOU)


def _set_settings(call: Call) -> int:
    _check_change(call)
    data = call.caller.memory.read(call.argument, abi.TERMIOS.size)
    call.tty.change_settings(call.tty.ldisc.termios.from_bytes(data))
    return 0


def _set_settings_flush(call: Call) -> int:
    _check_change(call)
    data = call.caller.memory.read(call.argument, abi.TERMIOS.size)
    call.tty.ldisc.flush_input()
    call.tty.change_settings(call.tty.ldisc.termios.from_bytes(data))
    return 0


def _set_settings2(call: Call) -> int:
    _check_change(call)
    data = call.caller.memory.read(call.argument, abi.TERMIOS2.size)
    call.tty.change_settings(call.tty.ldisc.termios.from_bytes2(data))
    return 0


def _set_settings2_flush(call: Call) -> int:
    _check_change(call)
    data = call.caller.memory.read(call.argument, abi.TERMIOS2.size)
    call.tty.ldisc.flush_input()
    call.tty.change_settings(call.tty.ldisc.termios.from_bytes2(data))
    return 0


def _set_settings_old(call: Call) -> int:
    _check_change(call)
    data = call.caller.memory.read(call.argument, abi.TERMIO.size)
    call.tty.change_settings(call.tty.ldisc.termios.from_bytes_old(data))
    return 0


def _set_settings_old_flush(call: Call) -> int:
    call.tty.ldisc.flush_input()
    return _set_settings_old(call)


def _get_locks(call: Call) -> int:
    call.caller.memory.write(call.argument, call.tty.locked.pack())
    return 0


def _set_locks(call: Call) -> int:
    if not call.caller.credentials.has(CAP_SYS_ADMIN):
        raise errnos.EPERM("locking settings needs CAP_SYS_ADMIN")
    data = call.caller.memory.read(call.argument, abi.TERMIOS.size)
    call.tty.locked = call.tty.locked.from_bytes(data)
    return 0


def _get_window(call: Call) -> int:
    call.caller.memory.write(call.argument, abi.WINSIZE.pack(*call.tty.window))
    return 0


def _set_window(call: Call) -> int:
    rows, columns, width, height = abi.WINSIZE.unpack(call.caller.memory.read(call.argument, abi.WINSIZE.size))
    call.tty.set_window((rows, columns, width, height))
    return 0


def _take(call: Call) -> int:
    jobs.take_by_request(call.tty, call.caller, call.number == 1, call.file.readable)
    return 0


def _give_up(call: Call) -> int:
    jobs.give_up(call.tty, call.caller)
    return 0


def _get_foreground(call: Call) -> int:
    return call.store_int(jobs.foreground_number(call.tty, call.caller, call.is_master))


def _set_foreground(call: Call) -> int:
    jobs.set_foreground(call.tty, call.caller, call.fetch_int())
    return 0


def _get_session(call: Call) -> int:
    return call.store_int(jobs.session_number(call.tty, call.caller, call.is_master))


def _count_input(call: Call) -> int:
    return call.store_int(call.tty.ldisc.readable_bytes())


def _count_output(call: Call) -> int:
    return call.store_int(len(call.tty.ldisc.screen.output))


def _flush(call: Call) -> int:
    _check_change(call)
    if call.number not in (abi.TCIFLUSH, abi.TCOFLUSH, abi.TCIOFLUSH):
        raise errnos.EINVAL(f"no queue {call.number} to flush")
    if call.number != abi.TCOFLUSH:
        call.tty.ldisc.flush_input()
    if call.number != abi.TCIFLUSH:
        call.tty.ldisc.flush_output()
    return 0


def _control_flow(call: Call) -> int:
    _check_change(call)
    ldisc = call.tty.ldisc
    if call.number == abi.TCOOFF:
        ldisc.stop_output()
    elif call.number == abi.TCOON:
        ldisc.start_output()
    elif call.number in (abi.TCIOFF, abi.TCION):
        key = ldisc.key(abi.VSTOP if call.number == abi.TCIOFF else abi.VSTART)
        if key >= 0:
            ldisc.screen.show(bytes((key,)))
            ldisc.listener.output_changed()
    else:
        raise errnos.EINVAL(f"no flow action {call.number}")
    return 0


def _send_break(call: Call) -> int:
    """Waits for output (there is none to wait for) and sends a break, which our lines cannot carry."""
    _check_change(call)
    return 0


def _hold_break(call: Call) -> int:
    return 0


def _claim(call: Call) -> int:
    call.tty.exclusive = True
    return 0


def _disclaim(call: Call) -> int:
    call.tty.exclusive = False
    return 0


def _is_claimed(call: Call) -> int:
    return call.store_int(int(call.tty.exclusive))


def _refuse_typing(call: Call) -> int:
    """TIOCSTI, off by default since Linux 6.2 (dev.tty.legacy_tiocsti): a way out of many a sandbox."""
    raise errnos.EIO("typing into a terminal is not allowed")


def _get_discipline(call: Call) -> int:
    return call.store_int(N_TTY)


def _set_discipline(call: Call) -> int:
    if call.fetch_int() != N_TTY:
        raise errnos.EINVAL("there is only N_TTY")
    return 0


def _get_carrier(call: Call) -> int:
    return call.store_int(int(bool(call.tty.ldisc.termios.cflag & abi.CLOCAL)))


def _set_carrier(call: Call) -> int:
    termios = call.tty.ldisc.termios
    termios.cflag = termios.cflag & ~abi.CLOCAL | (abi.CLOCAL if call.fetch_int() else 0)
    return 0


def _get_device(call: Call) -> int:
    return call.store_int(call.tty.device)


def _hang_up(call: Call) -> int:
    if not call.caller.credentials.has(CAP_SYS_ADMIN):
        raise errnos.EPERM("hanging up needs CAP_SYS_ADMIN")
    call.tty.hang_up()
    return 0


HANDLERS: dict[int, Callable[[Call], int]] = {
    io.TCGETS: _get_settings, io.TCSETS: _set_settings, io.TCSETSW: _set_settings, io.TCSETSF: _set_settings_flush,
    io.TCGETS2: _get_settings2, io.TCSETS2: _set_settings2, io.TCSETSW2: _set_settings2,
    io.TCSETSF2: _set_settings2_flush, io.TCGETA: _get_settings_old, io.TCSETA: _set_settings_old,
    io.TCSETAW: _set_settings_old, io.TCSETAF: _set_settings_old_flush, io.TIOCGWINSZ: _get_window,
    io.TIOCSWINSZ: _set_window, io.TIOCSCTTY: _take, io.TIOCNOTTY: _give_up, io.TIOCGPGRP: _get_foreground,
    io.TIOCSPGRP: _set_foreground, io.TIOCGSID: _get_session, io.FIONREAD: _count_input,
    io.TIOCOUTQ: _count_output, io.TCFLSH: _flush, io.TCXONC: _control_flow, io.TCSBRK: _send_break,
    io.TCSBRKP: _send_break, io.TIOCSBRK: _hold_break, io.TIOCCBRK: _hold_break, io.TIOCEXCL: _claim,
    io.TIOCNXCL: _disclaim, io.TIOCGEXCL: _is_claimed, io.TIOCSTI: _refuse_typing, io.TIOCGETD: _get_discipline,
    io.TIOCSETD: _set_discipline, io.TIOCGSOFTCAR: _get_carrier, io.TIOCSSOFTCAR: _set_carrier,
    io.TIOCGDEV: _get_device, io.TIOCVHANGUP: _hang_up, io.TIOCGLCKTRMIOS: _get_locks,
    io.TIOCSLCKTRMIOS: _set_locks,
}  # fmt: skip
