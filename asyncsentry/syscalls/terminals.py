"""Terminals: vhangup(2). All else about them is ioctl(2) and ``fs/tty``."""

from __future__ import annotations

from asyncsentry.errnos import EPERM
from asyncsentry.fs.tty.tty import Tty
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.credentials import CAP_SYS_TTY_CONFIG
from asyncsentry.tasks.thread import Thread


@syscall(153, errnos="EPERM")
def vhangup(thread: Thread) -> int:
    """vhangup(2): EPERM; without a controlling terminal nothing happens."""
    if not thread.credentials.has(CAP_SYS_TTY_CONFIG):
        raise EPERM("only CAP_SYS_TTY_CONFIG hangs terminals up")
    terminal = thread.process.session.terminal
    if isinstance(terminal, Tty):
        terminal.hang_up()
    return 0
