"""Guests confining themselves: seccomp(2).

A thread holds an immutable :class:`Seccomp`, inherited by its children and kept by execve(2). An
instrument of the dispatch consults it; that is attached when the first guest of a sandbox confines itself, so all
others pay nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import seccomp_h as abi
from asyncsentry.abi.signal_h import AUDIT_ARCH_X86_64, SIGKILL, SIGSYS
from asyncsentry.errnos import EACCES, EINVAL, ENOMEM, ENOSYS, ESRCH
from asyncsentry.tasks.bpf import Program
from asyncsentry.tasks.credentials import CAP_SYS_ADMIN
from asyncsentry.tasks.exit import begin_group_exit
from asyncsentry.tasks.signals import SigInfo, force_signal

if TYPE_CHECKING:
    from asyncsentry.syscalls.registry import Row
    from asyncsentry.tasks.thread import Thread

_STRICT_CALLS = frozenset((0, 1, 15, 60))
"""read, write, rt_sigreturn, exit."""
_INSTRUCTIONS_MAX = 32768
_ERRNO_MAX = 4095
_SYS_SECCOMP = 1


class Filter:
    """One filter program, and what it says to calls whatever their arguments are."""

    __slots__ = ("_constant", "program")

    def __init__(self, program: Program) -> None:
        self.program = program
        self._constant: dict[int, int] = {}

    def run(self, number: int, words: tuple[int, ...]) -> int:
        """Gives the program's answer to a call."""
        answer = self._constant.get(number)
        if answer is None:
            verdict = self.program.run(words)
            answer = verdict.value
            if not verdict.depends_on_arguments and len(self._constant) < 1024:
                self._constant[number] = answer
        return answer


class Seccomp:
    """How a thread is confined: strictly, or by filters, the newest first."""

    __slots__ = ("filters", "mode")

    def __init__(self, mode: int, filters: tuple[Filter, ...] = ()) -> None:
        self.mode = mode
        self.filters = filters

    def judge(self, thread: Thread, number: int, arguments: tuple[int, ...]) -> int:
        """Gives the action (with its data) of the filter that is least permissive; of equals, the newest's."""
        pointer = thread.context.get_registers().rip
        number &= 0xFFFFFFFF
        data = abi.SECCOMP_DATA.pack(number, AUDIT_ARCH_X86_64, pointer, *arguments)
        words = tuple(int.from_bytes(data[offset : offset + 4], "little") for offset in range(0, len(data), 4))
        answers = [guard.run(number, words) for guard in self.filters]
        return min(answers, key=_severity)


def _severity(answer: int) -> int:
    action = answer & abi.SECCOMP_RET_ACTION_FULL
    return action - (1 << 32) if action & 0x80000000 else action


class SeccompGuard:
    """The instrument that asks each calling thread's filters."""

    def enter(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...]) -> int | None:
        """Refuses, or gives ``None`` to let the call happen."""
        seccomp = thread.seccomp
        if seccomp is None:
            return None
        if seccomp.mode == abi.SECCOMP_MODE_STRICT:
            if number not in _STRICT_CALLS:
                begin_group_exit(thread.process, SIGKILL)
                return 0
            return None
        answer = seccomp.judge(thread, number, arguments)
        if answer & abi.SECCOMP_RET_ACTION_FULL in (abi.SECCOMP_RET_ALLOW, abi.SECCOMP_RET_LOG):
            return None
        return _refuse(thread, number, answer)

    def leave(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...],
              result: int | None) -> int | None:
        """Changes nothing."""
        return result


def _refuse(thread: Thread, number: int, answer: int) -> int:
    """Does what an action other than letting it happen says; gives what is left in ``rax``."""
    action, data = answer & abi.SECCOMP_RET_ACTION_FULL, answer & abi.SECCOMP_RET_DATA
    if action == abi.SECCOMP_RET_ERRNO:
        return -min(data, _ERRNO_MAX)
    if action == abi.SECCOMP_RET_TRAP:
        pointer = thread.context.get_registers().rip
        force_signal(thread, SigInfo(SIGSYS, _SYS_SECCOMP, errno=data, address=pointer, syscall=number & 0xFFFFFFFF))
        return number if number < 1 << 63 else number - (1 << 64)
    if action in (abi.SECCOMP_RET_TRACE, abi.SECCOMP_RET_USER_NOTIF):
        return -ENOSYS.errno  # nobody traces or listens
    if action == abi.SECCOMP_RET_KILL_THREAD and len(thread.process.threads) > 1:
        thread.exit_status = SIGSYS
    else:
        begin_group_exit(thread.process, SIGSYS)
    return 0


def set_strict(thread: Thread) -> None:
    """SECCOMP_SET_MODE_STRICT; EINVAL if filters are in place."""
    if thread.seccomp is not None and thread.seccomp.mode != abi.SECCOMP_MODE_STRICT:
        raise EINVAL("confined by filters already")
    thread.seccomp = Seccomp(abi.SECCOMP_MODE_STRICT)
    _attach(thread)


def add_filter(thread: Thread, data: bytes, synchronize: bool = False, esrch: bool = False) -> int:
    """SECCOMP_SET_MODE_FILTER: adds a filter to the caller's, and with TSYNC to those of all its siblings.

    Gives 0, or the tid of a thread that cannot follow.
    """
    if not thread.credentials.no_new_privs and not thread.credentials.has(CAP_SYS_ADMIN):
        raise EACCES("neither no_new_privs nor CAP_SYS_ADMIN")
    old = thread.seccomp
    if old is not None and old.mode == abi.SECCOMP_MODE_STRICT:
        raise EINVAL("strictly confined already")
    filters = (Filter(Program(data)), *(old.filters if old is not None else ()))
    if sum(len(guard.program.instructions) + 4 for guard in filters) > _INSTRUCTIONS_MAX:
        raise ENOMEM("too many instructions in all filters")
    new = Seccomp(abi.SECCOMP_MODE_FILTER, filters)
    if synchronize:
        stranger = next((other for other in thread.process.threads.values() if not _is_ancestor(other, thread)), None)
        if stranger is not None:
            if esrch:
                raise ESRCH(f"thread {stranger.tid} has filters of its own")
            return stranger.tid
        for other in thread.process.threads.values():
            other.seccomp = new
            other.credentials = other.credentials.change(no_new_privs=other.credentials.no_new_privs
                                                         or thread.credentials.no_new_privs)
    thread.seccomp = new
    _attach(thread)
    return 0


def _is_ancestor(other: Thread, caller: Thread) -> bool:
    """Whether a thread has no filters but those that the caller has too."""
    theirs = other.seccomp.filters if other.seccomp is not None else ()
    mine = caller.seccomp.filters if caller.seccomp is not None else ()
    is_strict = other.seccomp is not None and other.seccomp.mode == abi.SECCOMP_MODE_STRICT
    return not is_strict and (not theirs or mine[-len(theirs) :] == theirs)


def _attach(thread: Thread) -> None:
    instruments = thread.kernel.dispatch.instruments
    if not any(isinstance(instrument, SeccompGuard) for instrument in instruments):
        instruments.append(SeccompGuard())
