"""The seccomp filter of guest processes: which host calls the stub may make, written with labels.

Every system call a guest makes traps (SIGSYS). The stub's own calls are told apart by the instruction pointer.
Guest code may jump to the stub's ``syscall`` instructions with registers of its choice, so what is let through
must harm nobody but the caller: memory calls on guest addresses, leaving, returning from signals. What lends or
makes something (a mapping of a descriptor, clone), and a thread's exit, is put to the sentry with its registers
(SECCOMP_RET_USER_NOTIF), and so is the doorbell. See seccomp(2), linux/filter.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

AUDIT_ARCH_X86_64 = 0xC000003E
RET_TRAP, RET_USER_NOTIF, RET_ALLOW = 0x00030000, 0x7FC00000, 0x7FFF0000

_LOAD, _RETURN = 0x20, 0x06
_JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT = 0x15, 0x35, 0x45
_TAX, _ADD_X = 0x07, 0x0C

_NR, _ARCH, _IP, _ARGUMENTS = 0, 4, 8, 16

SYS_MMAP, SYS_MPROTECT, SYS_MUNMAP, SYS_RT_SIGRETURN, SYS_MREMAP, SYS_MSYNC, SYS_MADVISE = 9, 10, 11, 15, 25, 26, 28
SYS_CLONE, SYS_EXIT, SYS_CLOSE, SYS_SIGALTSTACK, SYS_MLOCK, SYS_MUNLOCK, SYS_PRCTL = 56, 60, 3, 131, 149, 150, 157
SYS_ARCH_PRCTL, SYS_EXIT_GROUP, SYS_FUTEX = 158, 231, 202
_FUTEX_WAIT, _MAP_ANONYMOUS, _MADV_DONTFORK, _PR_SET_PDEATHSIG, _SIGKILL = 0, 0x20, 10, 1, 9
_ARCH_SET_GS, _ARCH_AFTER_GET_GS = 0x1001, 0x1005

_FREE = (SYS_RT_SIGRETURN, SYS_SIGALTSTACK, SYS_CLOSE, SYS_EXIT_GROUP)
_ASKED = (SYS_CLONE, SYS_EXIT)
"""A thread that could exit unnoticed would leave its tid, by which we reach its memory, to a stranger."""
_RANGE_CALLS = (SYS_MUNMAP, SYS_MPROTECT, SYS_MADVISE, SYS_MREMAP, SYS_MMAP, SYS_MSYNC, SYS_MLOCK, SYS_MUNLOCK)


@dataclass
class _Assembler:
    """Classic BPF with labels; a jump whose label is ``None`` falls through to the next instruction."""

    instructions: list[tuple[int, str | None, str | None, int]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def load(self, offset: int) -> None:
        self.instructions.append((_LOAD, None, None, offset))

    def jump(self, code: int, value: int, then: str | None = None, otherwise: str | None = None) -> None:
        self.instructions.append((code, then, otherwise, value))

    def simple(self, code: int, value: int = 0) -> None:
        self.instructions.append((code, None, None, value))

    def label(self, name: str) -> None:
        self.labels[name] = len(self.instructions)

    def assemble(self) -> bytes:
        program = []
        for index, (code, then, otherwise, value) in enumerate(self.instructions):
            jumps = [0 if target is None else self.labels[target] - index - 1 for target in (then, otherwise)]
            program.append(struct.pack("<HBBI", code, *jumps, value))
        return b"".join(program)


def build(stub_base: int, stub_size: int, slots_base: int, doorbell: int) -> bytes:
    """Gives the filter as an array of ``struct sock_filter``.

    Guest ranges are told by upper address halves: address and length each, and their sum, must stay two
    below the stub's upper half, so that no range, carries of the lower halves included, reaches the stub.
    """
    a = _Assembler()
    high, ours = stub_base >> 32, (stub_base >> 32) - 1
    a.load(_ARCH)
    a.jump(_JUMP_EQUAL, AUDIT_ARCH_X86_64, otherwise="trap")
    a.load(_IP + 4)
    a.jump(_JUMP_EQUAL, high, otherwise="trap")
    a.load(_IP)
    a.jump(_JUMP_AT_LEAST, (stub_base + stub_size) & 0xFFFFFFFF, then="trap")
    a.load(_NR)
    a.jump(_JUMP_EQUAL, doorbell, then="notify")
    for number in _FREE:
        a.jump(_JUMP_EQUAL, number, then="allow")
    for number in _ASKED:
        a.jump(_JUMP_EQUAL, number, then="notify")
    a.jump(_JUMP_EQUAL, SYS_PRCTL, then="prctl")
    a.jump(_JUMP_EQUAL, SYS_ARCH_PRCTL, then="arch_prctl")
    a.jump(_JUMP_EQUAL, SYS_FUTEX, then="futex")
    for number in _RANGE_CALLS:
        a.jump(_JUMP_EQUAL, number, then="range")
    a.label("trap")
    a.simple(_RETURN, RET_TRAP)
    _own_affairs(a)
    _memory_calls(a, ours, slots_base)
    a.label("notify")
    a.simple(_RETURN, RET_USER_NOTIF)
    a.label("allow")
    a.simple(_RETURN, RET_ALLOW)
    a.label("refuse")
    a.simple(_RETURN, RET_TRAP)
    return a.assemble()


def _own_affairs(a: _Assembler) -> None:
    """Dying with the sentry, sleeping, and the thread pointers."""
    a.label("prctl")
    a.load(_ARGUMENTS)
    a.jump(_JUMP_EQUAL, _PR_SET_PDEATHSIG, otherwise="refuse")
    a.load(_ARGUMENTS + 8)
    a.jump(_JUMP_EQUAL, _SIGKILL, then="allow", otherwise="refuse")
    a.label("futex")  # sleeping, of its own accord
    a.load(_ARGUMENTS + 8)
    a.jump(_JUMP_EQUAL, _FUTEX_WAIT, then="allow", otherwise="refuse")
    a.label("arch_prctl")
    a.load(_ARGUMENTS)
    a.jump(_JUMP_AT_LEAST, _ARCH_AFTER_GET_GS, then="refuse")
    a.jump(_JUMP_AT_LEAST, _ARCH_SET_GS, then="allow", otherwise="refuse")


def _memory_calls(a: _Assembler, ours: int, slots_base: int) -> None:
    a.label("range")
    _check_range(a, 0, 1, ours, "beyond")
    a.load(_NR)
    a.jump(_JUMP_EQUAL, SYS_MMAP, then="mmap")
    a.jump(_JUMP_EQUAL, SYS_MREMAP, otherwise="allow")
    _check_range(a, 0, 2, ours, "refuse")
    _check_range(a, 4, 2, ours, "refuse")
    a.simple(_RETURN, RET_ALLOW)
    a.label("mmap")  # of a descriptor: the sentry must have lent it
    a.load(_ARGUMENTS + 3 * 8)
    a.jump(_JUMP_ANY_BIT, _MAP_ANONYMOUS, then="allow", otherwise="notify")
    a.label("beyond")  # only slots are mapped beyond guest addresses, and kept from children
    a.load(_NR)
    a.jump(_JUMP_EQUAL, SYS_MMAP, then="notify")
    a.jump(_JUMP_EQUAL, SYS_MADVISE, otherwise="refuse")
    a.load(_ARGUMENTS + 4)
    a.jump(_JUMP_EQUAL, slots_base >> 32, otherwise="refuse")
    a.load(_ARGUMENTS + 16)
    a.jump(_JUMP_EQUAL, _MADV_DONTFORK, then="allow", otherwise="refuse")


def _check_range(a: _Assembler, address: int, length: int, ours: int, otherwise: str) -> None:
    a.load(_ARGUMENTS + length * 8 + 4)
    a.jump(_JUMP_AT_LEAST, ours, then=otherwise)
    a.simple(_TAX)
    a.load(_ARGUMENTS + address * 8 + 4)
    a.jump(_JUMP_AT_LEAST, ours, then=otherwise)
    a.simple(_ADD_X)
    a.jump(_JUMP_AT_LEAST, ours, then=otherwise)
