"""Guests that confine themselves."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_of_coroutines import A, Sandbox

from asyncsentry.abi import seccomp_h as abi
from asyncsentry.errnos import EACCES, EINVAL, ENOSYS
from asyncsentry.platforms.fake import FakeContext
from asyncsentry.tasks.bpf import Program
from asyncsentry.tasks.credentials import Credentials

GETPID, GETPPID, GETUID, SECCOMP, PRCTL, FORK, WAIT4, EXIT = 39, 110, 102, 317, 157, 57, 61, 60
LOAD, JEQ, RETURN = 0x20, 0x15, 0x06
ALLOW = (RETURN, 0, 0, abi.SECCOMP_RET_ALLOW)


def pack(*rows: tuple[int, int, int, int]) -> bytes:
    return b"".join(abi.SOCK_FILTER.pack(*row) for row in rows)


def refuse(number: int, action: int) -> bytes:
    """Gives a program that answers one call with an action and allows the others."""
    return pack((LOAD, 0, 0, 0), (JEQ, 0, 1, number), (RETURN, 0, 0, action), ALLOW)


async def install(guest: FakeContext, program: bytes, flags: int = 0) -> int:
    guest.memory.write(A + 0x1000, program)
    guest.memory.write(A + 0x800, abi.SOCK_FPROG.pack(len(program) // 8, A + 0x1000))
    return await guest.syscall(SECCOMP, abi.SECCOMP_SET_MODE_FILTER, flags, A + 0x800)


@pytest.mark.parametrize("program", [
    b"",
    pack((LOAD, 0, 0, 0)),
    pack((LOAD, 0, 0, 3), ALLOW),
    pack((LOAD, 0, 0, 64), ALLOW),
    pack((JEQ, 1, 0, 0), ALLOW),
    pack((0x05, 0, 0, 1), ALLOW),
    pack((0x34, 0, 0, 0), ALLOW),
    pack((0x64, 0, 0, 32), ALLOW),
    pack((0x28, 0, 0, 0), ALLOW),
    pack((0x02, 0, 0, 16), ALLOW),
])  # fmt: skip
def test_what_is_no_program_is_refused(program: bytes) -> None:
    with pytest.raises(EINVAL):
        Program(program)


def test_a_program_calculates() -> None:
    program = Program(pack(
        (LOAD, 0, 0, 16), (0x07, 0, 0, 0), (0x00, 0, 0, 5), (0x0C, 0, 0, 0), (0x02, 0, 0, 3), (0x61, 0, 0, 3),
        (0x87, 0, 0, 0), (0x24, 0, 0, 3), (0x16, 0, 0, 0)))  # fmt: skip
    words = tuple(7 if index == 4 else 0 for index in range(16))
    assert program.run(words) == (36, True)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255),
                          st.one_of(st.integers(0, 64), st.integers(0, 0xFFFFFFFF))), min_size=1, max_size=12))
def test_whatever_passes_the_check_ends_with_a_32_bit_verdict(rows: list[tuple[int, int, int, int]]) -> None:
    try:
        program = Program(pack(*rows, ALLOW))
    except EINVAL:
        return
    assert 0 <= program.run(tuple(range(16))).value < 1 << 32


async def test_a_filter_answers_with_an_errno_and_the_least_permissive_wins() -> None:
    async def program(guest: FakeContext) -> None:
        assert await install(guest, refuse(GETPPID, abi.SECCOMP_RET_ERRNO | 77)) == 0
        assert await guest.syscall(GETPPID) == -77
        assert await install(guest, refuse(GETPPID, abi.SECCOMP_RET_TRACE)) == 0
        assert await guest.syscall(GETPPID) == -77
        assert await guest.syscall(GETPID) == 1
        assert await install(guest, refuse(GETUID, abi.SECCOMP_RET_TRACE)) == 0
        assert await guest.syscall(GETUID) == -ENOSYS.errno
        assert await guest.syscall(PRCTL, 21) == 2

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0


async def test_users_need_no_new_privs_first() -> None:
    async def program(guest: FakeContext) -> None:
        assert await install(guest, pack(ALLOW)) == -EACCES.errno
        assert await guest.syscall(PRCTL, 38, 1) == 0
        assert await install(guest, pack(ALLOW)) == 0
        assert await install(guest, pack(ALLOW), abi.SECCOMP_FILTER_FLAG_TSYNC) == 0
        assert await install(guest, pack(ALLOW), abi.SECCOMP_FILTER_FLAG_NEW_LISTENER) == -EINVAL.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(program, Credentials.for_user(5, 5)) == 0


@pytest.mark.parametrize(("action", "signal"), [(abi.SECCOMP_RET_KILL_PROCESS, 31), (abi.SECCOMP_RET_KILL_THREAD, 31),
                                                (abi.SECCOMP_RET_TRAP, 31)])  # fmt: skip
async def test_children_inherit_filters_that_kill(action: int, signal: int) -> None:
    async def child(guest: FakeContext) -> None:
        await guest.syscall(GETUID)
        await guest.syscall(EXIT, 0)

    async def program(guest: FakeContext) -> None:
        assert await install(guest, refuse(GETUID, action)) == 0
        guest.child_program = child
        pid = await guest.syscall(FORK)
        assert await guest.syscall(WAIT4, pid, A, 0, 0) == pid
        assert struct.unpack("<i", guest.memory.read(A, 4))[0] & 0x7F == signal

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0


async def test_strict_mode_leaves_four_calls() -> None:
    async def child(guest: FakeContext) -> None:
        assert await guest.syscall(SECCOMP, abi.SECCOMP_SET_MODE_STRICT, 0, 0) == 0
        await guest.syscall(GETPID)

    async def program(guest: FakeContext) -> None:
        guest.child_program = child
        pid = await guest.syscall(FORK)
        assert await guest.syscall(WAIT4, pid, A, 0, 0) == pid
        assert struct.unpack("<i", guest.memory.read(A, 4))[0] == 9

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0
