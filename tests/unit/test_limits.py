"""Resource limits, scheduling attributes, groups and sessions."""

from __future__ import annotations

import struct

import pytest
from sandbox_of_coroutines import A, Sandbox

from asyncsentry.abi import resource_h as abi
from asyncsentry.errnos import EACCES, EAGAIN, EINVAL, EPERM, ESRCH
from asyncsentry.platforms.fake import FakeContext
from asyncsentry.tasks import limits
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.limits import NR_OPEN, Limits
from asyncsentry.tasks.usage import Usage

FORK, EXIT, WAIT4, GETRLIMIT, SETRLIMIT, PRLIMIT = 57, 60, 61, 97, 160, 302
SETPGID, SETSID, GETSID, GETPGID = 109, 112, 124, 121
GETPRIORITY, SETPRIORITY, SCHED_SETSCHEDULER, SCHED_GETSCHEDULER, SETUID = 140, 141, 144, 145, 105


def test_limits_are_copied_not_shared() -> None:
    parent = Limits()
    child = parent.copy()
    child.set(abi.RLIMIT_CORE, 5, 6)
    assert parent.get(abi.RLIMIT_CORE) != (5, 6)
    with pytest.raises(EINVAL):
        parent.get(16)


def test_usage_lays_out_as_struct_rusage() -> None:
    usage = Usage(user_ns=1_500_000_000, system_ns=2_000_001_000, max_rss_bytes=4096 * 3, minor_faults=8)
    usage.add(Usage(user_ns=500_000_000, max_rss_bytes=1))
    assert struct.unpack("<18q", usage.pack())[:9] == (2, 0, 2, 1, 12, 0, 0, 0, 8)


async def test_a_hard_limit_goes_down_but_not_up() -> None:
    async def program(guest: FakeContext) -> None:
        guest.memory.write(A, abi.RLIMIT.pack(10, 20))
        assert await guest.syscall(SETRLIMIT, abi.RLIMIT_NOFILE, A) == 0
        guest.memory.write(A, abi.RLIMIT.pack(20, 21))
        assert await guest.syscall(SETRLIMIT, abi.RLIMIT_NOFILE, A) == -EPERM.errno
        guest.memory.write(A, abi.RLIMIT.pack(21, 20))
        assert await guest.syscall(PRLIMIT, 0, abi.RLIMIT_NOFILE, A, 0) == -EINVAL.errno
        assert await guest.syscall(PRLIMIT, 0, abi.RLIMIT_NOFILE, 0, A) == 0
        assert abi.RLIMIT.unpack(guest.memory.read(A, 16)) == (10, 20)
        assert await guest.syscall(GETRLIMIT, 99, A) == -EINVAL.errno

    async with Sandbox() as sandbox:
        process = await sandbox.spawn(program, Credentials.for_user(5, 5))
        table = process.leader.fds
        await sandbox.until(lambda: process.is_zombie)
        assert process.exit_status == 0
        assert table.limit == 10


async def test_even_root_cannot_exceed_nr_open() -> None:
    async def program(guest: FakeContext) -> None:
        guest.memory.write(A, abi.RLIMIT.pack(NR_OPEN, NR_OPEN + 1))
        assert await guest.syscall(SETRLIMIT, abi.RLIMIT_NOFILE, A) == -EPERM.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0


async def test_fork_fails_at_the_limit_of_processes() -> None:
    async def program(guest: FakeContext) -> None:
        guest.memory.write(A, abi.RLIMIT.pack(1, 1))
        assert await guest.syscall(SETRLIMIT, abi.RLIMIT_NPROC, A) == 0
        assert await guest.syscall(FORK) == -EAGAIN.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(program, Credentials.for_user(5, 5)) == 0


async def test_not_even_root_can_fork_until_the_host_has_no_numbers_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "THREADS_MAX", 4)

    async def sleeper(guest: FakeContext) -> None:
        await guest.syscall(34)

    async def program(guest: FakeContext) -> None:
        guest.child_program = sleeper
        forked = [await guest.syscall(FORK) for _ in range(6)]
        assert forked == [2, 3, 4, -EAGAIN.errno, -EAGAIN.errno, -EAGAIN.errno]

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0
        assert not sandbox.kernel.threads
    monkeypatch.setattr(limits, "THREADS_MAX", 100)
    monkeypatch.setattr(limits, "PROCESSES_MAX", 4)
    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0


async def test_there_may_be_more_threads_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROCESSES_MAX", 1)

    async def sleeper(guest: FakeContext) -> None:
        await guest.syscall(34)

    async def program(guest: FakeContext) -> None:
        guest.child_program = sleeper
        assert await guest.syscall(56, 0x10F00, 0, 0, 0, 0) == 2
        assert await guest.syscall(56, 0x10F00, 0, 0, 0, 0) == 3
        assert await guest.syscall(FORK) == -EAGAIN.errno
        await guest.syscall(231, 0)

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0


async def test_niceness_is_inherited_and_only_goes_up_for_users() -> None:
    async def child(guest: FakeContext) -> None:
        await guest.syscall(EXIT, await guest.syscall(GETPRIORITY, 0, 0))

    async def program(guest: FakeContext) -> None:
        guest.child_program = child
        assert await guest.syscall(SETPRIORITY, 0, 0, 5) == 0
        assert await guest.syscall(SETPRIORITY, 0, 0, 4) == -EACCES.errno
        await guest.syscall(FORK)
        await guest.syscall(WAIT4, -1, A, 0, 0)
        assert guest.memory.read(A + 1, 1) == bytes([15])
        assert await guest.syscall(GETPRIORITY, 0, 99) == -ESRCH.errno
        guest.memory.write(A, (50).to_bytes(4, "little"))
        assert await guest.syscall(SCHED_SETSCHEDULER, 0, 1, A) == -EPERM.errno
        assert await guest.syscall(SCHED_SETSCHEDULER, 0, 0, A) == -EINVAL.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(program, Credentials.for_user(5, 5)) == 0


async def test_a_real_time_policy_is_told_back_to_root() -> None:
    async def program(guest: FakeContext) -> None:
        guest.memory.write(A, (50).to_bytes(4, "little"))
        assert await guest.syscall(SCHED_SETSCHEDULER, 0, 1 | 0x40000000, A) == 0
        assert await guest.syscall(SCHED_GETSCHEDULER, 0) == 1 | 0x40000000
        assert await guest.syscall(204, 0, 128, A) == 8
        assert guest.memory.read(A, 8) == (0b11).to_bytes(8, "little")

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0


async def test_groups_and_sessions() -> None:
    async def child(guest: FakeContext) -> None:
        assert await guest.syscall(SETPGID, 0, 0) == 0
        assert await guest.syscall(SETSID) == -EPERM.errno
        await guest.syscall(EXIT, 0)

    async def leader(guest: FakeContext) -> None:
        assert await guest.syscall(SETSID) == 3
        assert await guest.syscall(GETSID, 0) == 3
        assert await guest.syscall(SETPGID, 0, 1) == -EPERM.errno
        await guest.syscall(EXIT, 0)

    async def program(guest: FakeContext) -> None:
        guest.child_program = child
        pid = await guest.syscall(FORK)
        assert await guest.syscall(SETPGID, pid, -1) == -EINVAL.errno
        assert await guest.syscall(SETPGID, 99, 0) == -ESRCH.errno
        assert await guest.syscall(WAIT4, pid, A, 0, 0) == pid
        assert guest.memory.read(A, 4) == bytes(4)
        guest.child_program = leader
        assert await guest.syscall(WAIT4, await guest.syscall(FORK), A, 0, 0) == 3
        assert guest.memory.read(A, 4) == bytes(4)
        assert await guest.syscall(GETPGID, 3) == -ESRCH.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0
