"""Births: what is known of the guest thread or process being made, and telling the real newborn from a lie.

A guest can change whatever its stub writes into the slot, the number of its new child included. What the host
kernel says cannot be forged: all guest processes of a sandbox, and nothing else, are in the session that its zygote
began, and none of them can leave it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsentry.platforms.systrap.context import SystrapContext

WAIT_ALL = 0x40000000
"""__WALL, waitpid(2): children whatever signal they end with."""


class Birth:
    """The one birth under way in a sandbox."""

    __slots__ = ("child", "flags", "is_allowed", "parent")

    def __init__(self, parent: SystrapContext, child: SystrapContext, flags: int) -> None:
        self.parent = parent
        self.child = child
        self.flags = flags
        self.is_allowed = False
        """Whether the parent has been allowed its one clone(2)."""


def is_in_session(pid: int, session: int) -> bool:
    """Whether a process belongs to a session."""
    try:
        return pid > 0 and os.getsid(pid) == session
    except OSError:
        return False


def kill_strays(session: int, known: Container[int]) -> None:
    """Kills our children in a session that nobody has taken note of, and reaps them."""
    for pid in _children():
        if pid not in known and is_in_session(pid, session):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, WAIT_ALL)


def _children() -> list[int]:
    pids: list[int] = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as children:
                pids.extend(map(int, children.read().split()))
        except FileNotFoundError:
            continue
    return pids
