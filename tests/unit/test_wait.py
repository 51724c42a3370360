"""Ends of processes, and who hears of them."""

from __future__ import annotations

import struct

from sandbox_of_coroutines import A, Sandbox

from asyncsentry.abi import wait_h
from asyncsentry.errnos import ECHILD, EINVAL
from asyncsentry.platforms.fake import FakeContext

EXIT, WAIT4, FORK, KILL, GETPPID, EXIT_GROUP, WAITID, GETPID, PRCTL = 60, 61, 57, 62, 110, 231, 247, 39, 157


async def child_exits_7(guest: FakeContext) -> None:
    await guest.syscall(EXIT, 7)


async def test_wait4_gives_pid_and_status_of_an_exited_child() -> None:
    async def init(guest: FakeContext) -> None:
        guest.child_program = child_exits_7
        pid = await guest.syscall(FORK)
        assert pid == 2
        assert await guest.syscall(WAIT4, -1, A, 0, 0) == pid
        assert guest.memory.read(A, 4) == (7 << 8).to_bytes(4, "little")
        assert await guest.syscall(WAIT4, -1, A, 0, 0) == -ECHILD.errno
        await guest.syscall(EXIT_GROUP, 3)

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 3 << 8
        assert not sandbox.kernel.processes


async def test_wnohang_returns_0_while_the_child_lives_and_a_killed_child_reports_its_signal() -> None:
    async def sleeper(guest: FakeContext) -> None:
        await guest.syscall(34)

    async def init(guest: FakeContext) -> None:
        guest.child_program = sleeper
        pid = await guest.syscall(FORK)
        assert await guest.syscall(WAIT4, pid, A, wait_h.WNOHANG, 0) == 0
        assert await guest.syscall(KILL, pid, 9) == 0
        assert await guest.syscall(WAIT4, pid, A, 0, A + 64) == pid
        assert guest.memory.read(A, 4) == (9).to_bytes(4, "little")

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0


async def test_waitid_leaves_the_zombie_with_wnowait_and_tells_of_it_in_siginfo() -> None:
    async def init(guest: FakeContext) -> None:
        guest.child_program = child_exits_7
        pid = await guest.syscall(FORK)
        for options in (wait_h.WEXITED | wait_h.WNOWAIT, wait_h.WEXITED):
            assert await guest.syscall(WAITID, wait_h.P_PID, pid, A, options, 0) == 0
            signo, _, code, _, child, _, status = struct.unpack("<7i", guest.memory.read(A, 28))
            assert (signo, code, child, status) == (17, wait_h.CLD_EXITED, pid, 7)
        assert await guest.syscall(WAITID, wait_h.P_ALL, 0, A, wait_h.WEXITED, 0) == -ECHILD.errno
        assert await guest.syscall(WAITID, wait_h.P_ALL, 0, A, 0, 0) == -EINVAL.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0


async def test_a_parent_that_ignores_sigchld_gets_no_zombies() -> None:
    async def init(guest: FakeContext) -> None:
        guest.memory.write(A, struct.pack("<QQQQ", 1, 0, 0, 0))
        assert await guest.syscall(13, 17, A, 0, 8) == 0
        guest.child_program = child_exits_7
        assert await guest.syscall(FORK) == 2
        assert await guest.syscall(WAIT4, -1, A, 0, 0) == -ECHILD.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0
        assert 2 not in sandbox.kernel.processes


async def test_orphans_go_to_init_which_reaps_them() -> None:
    async def grandchild(guest: FakeContext) -> None:
        while await guest.syscall(GETPPID) != 1:
            await guest.syscall(24)
        await guest.syscall(EXIT, 5)

    async def child(guest: FakeContext) -> None:
        guest.child_program = grandchild
        await guest.syscall(FORK)

    async def init(guest: FakeContext) -> None:
        guest.child_program = child
        await guest.syscall(FORK)
        reaped = {await guest.syscall(WAIT4, -1, A, 0, 0), await guest.syscall(WAIT4, -1, A, 0, 0)}
        assert reaped == {2, 3}
        assert guest.memory.read(A, 4) == (5 << 8).to_bytes(4, "little")

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0


async def test_the_end_of_init_ends_everybody() -> None:
    async def sleeper(guest: FakeContext) -> None:
        await guest.syscall(34)

    async def init(guest: FakeContext) -> None:
        guest.child_program = sleeper
        await guest.syscall(FORK)
        await guest.syscall(FORK)

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0
        assert not sandbox.kernel.processes
        assert not sandbox.kernel.threads


async def test_a_stopped_and_continued_child_is_reported_once_each() -> None:
    async def sleeper(guest: FakeContext) -> None:
        await guest.syscall(34)

    async def init(guest: FakeContext) -> None:
        guest.child_program = sleeper
        pid = await guest.syscall(FORK)
        await guest.syscall(KILL, pid, 19)
        assert await guest.syscall(WAIT4, pid, A, wait_h.WUNTRACED, 0) == pid
        assert guest.memory.read(A, 4) == (19 << 8 | 0x7F).to_bytes(4, "little")
        assert await guest.syscall(WAIT4, pid, A, wait_h.WUNTRACED | wait_h.WNOHANG, 0) == 0
        await guest.syscall(KILL, pid, 18)
        assert await guest.syscall(WAIT4, pid, A, wait_h.WCONTINUED, 0) == pid
        assert guest.memory.read(A, 4) == (0xFFFF).to_bytes(4, "little")

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0
