"""What a process does about each signal: sigaction(2), the default actions of signal(7)."""

from __future__ import annotations

import enum
from typing import NamedTuple

from asyncsentry.abi import signal_h as abi


class Default(enum.Enum):
    """What happens if a program has not asked for anything."""

    TERMINATE = "terminate"
    CORE = "core"
    STOP = "stop"
    CONTINUE = "continue"
    IGNORE = "ignore"


_DEFAULTS = {
    abi.SIGCONT: Default.CONTINUE,
    **dict.fromkeys((abi.SIGCHLD, abi.SIGURG, abi.SIGWINCH), Default.IGNORE),
    **dict.fromkeys((abi.SIGSTOP, abi.SIGTSTP, abi.SIGTTIN, abi.SIGTTOU), Default.STOP),
    **dict.fromkeys((abi.SIGQUIT, abi.SIGILL, abi.SIGTRAP, abi.SIGABRT, abi.SIGBUS, abi.SIGFPE, abi.SIGSEGV,
                     abi.SIGXCPU, abi.SIGXFSZ, abi.SIGSYS), Default.CORE),
}  # fmt: skip


def default_action(signo: int) -> Default:
    """Gives what ``signo`` does under SIG_DFL."""
    return _DEFAULTS.get(signo, Default.TERMINATE)


def bit(signo: int) -> int:
    """Gives a signal's bit in a mask."""
    return 1 << (signo - 1)


def mask_of(*signals: int) -> int:
    """Gives the mask of several signals."""
    mask = 0
    for signo in signals:
        mask |= bit(signo)
    return mask


UNBLOCKABLE = mask_of(abi.SIGKILL, abi.SIGSTOP)
STOP_SIGNALS = mask_of(abi.SIGSTOP, abi.SIGTSTP, abi.SIGTTIN, abi.SIGTTOU)
CONTINUE_SIGNAL = bit(abi.SIGCONT)
SYNCHRONOUS = mask_of(abi.SIGSEGV, abi.SIGBUS, abi.SIGILL, abi.SIGTRAP, abi.SIGFPE, abi.SIGSYS)
ALL_SIGNALS = (1 << abi.NSIG) - 1
_IGNORED_BY_DEFAULT = mask_of(*(
    signo for signo, kind in _DEFAULTS.items() if kind in (Default.IGNORE, Default.CONTINUE)
))  # fmt: skip


class Action(NamedTuple):
    """One struct sigaction, in the kernel's order of fields."""

    handler: int = abi.SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


DEFAULT_ACTION = Action()


class ActionTable:
    """The actions of a process; several processes share one with CLONE_SIGHAND."""

    __slots__ = ("_actions",)

    def __init__(self, actions: dict[int, Action] | None = None) -> None:
        self._actions = actions or {}

    def __getitem__(self, signo: int) -> Action:
        return self._actions.get(signo, DEFAULT_ACTION)

    def __setitem__(self, signo: int, action: Action) -> None:
        self._actions[signo] = action

    def ignores(self, signo: int) -> bool:
        """Whether the signal has no effect, by request or by default."""
        handler = self[signo].handler
        return handler == abi.SIG_IGN or (handler == abi.SIG_DFL and bool(_IGNORED_BY_DEFAULT & bit(signo)))

    def masks(self) -> tuple[int, int]:
        """Gives the masks of ignored and of caught signals, as in /proc/PID/status."""
        ignored = caught = 0
        for signo, action in self._actions.items():
            if action.handler == abi.SIG_IGN:
                ignored |= bit(signo)
            elif action.handler != abi.SIG_DFL:
                caught |= bit(signo)
        return ignored, caught

    def copy(self) -> ActionTable:
        """Gives an independent copy, fork(2)."""
        return ActionTable(dict(self._actions))

    def after_exec(self) -> ActionTable:
        """Gives the table a new program starts with: what was ignored stays ignored, execve(2)."""
        kept = {signo: Action(abi.SIG_IGN) for signo, a in self._actions.items() if a.handler == abi.SIG_IGN}
        return ActionTable(kept)
