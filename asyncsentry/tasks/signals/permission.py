"""Whom a guest may signal: kill(2), the kernel's check_kill_permission()."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi.signal_h import SIGCONT
from asyncsentry.errnos import EPERM
from asyncsentry.tasks.credentials import CAP_KILL

if TYPE_CHECKING:
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread


def check_may_signal(sender: Thread, process: Process, signo: int) -> None:
    """EPERM unless ``sender`` may send ``signo`` (0: just ask) to a process."""
    if process is sender.process:
        return
    own, target = sender.credentials, process.credentials
    if {own.euid, own.ruid} & {target.suid, target.ruid} or own.has(CAP_KILL):
        return
    if signo == SIGCONT and process.session is sender.process.session:
        return
    raise EPERM(f"process {process.pid} belongs to user {target.ruid}")
