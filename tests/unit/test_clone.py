"""Making threads and processes."""

from __future__ import annotations

import struct

import pytest
from sandbox_of_coroutines import A, Sandbox

from asyncsentry.abi import sched_h as abi
from asyncsentry.errnos import EBADF, EEXIST, EINVAL, EPERM, ESRCH, LinuxError
from asyncsentry.platforms.fake import FakeContext
from asyncsentry.tasks.clone import CloneArgs, check_flags

CLONE, FORK, VFORK, EXIT, WAIT4, CLONE3, GETTID, GETPID, FUTEX, EXIT_GROUP = 56, 57, 58, 60, 61, 435, 186, 39, 202, 231
POLL, WAITID, PIDFD_OPEN = 7, 247, 434
THREAD = abi.CLONE_VM | abi.CLONE_FS | abi.CLONE_FILES | abi.CLONE_SIGHAND | abi.CLONE_THREAD | abi.CLONE_SYSVSEM
CHILD_STACK = A + 0x8000


@pytest.mark.parametrize(("flags", "error"), [
    (abi.CLONE_THREAD, EINVAL),
    (abi.CLONE_SIGHAND, EINVAL),
    (abi.CLONE_THREAD | abi.CLONE_VM, EINVAL),
    (abi.CLONE_FS | abi.CLONE_NEWNS, EINVAL),
    (abi.CLONE_SIGHAND | abi.CLONE_VM | abi.CLONE_CLEAR_SIGHAND, EINVAL),
    (abi.CLONE_NEWUSER, EPERM),
    (abi.CLONE_NEWPID, EPERM),
])  # fmt: skip
def test_flags_that_make_no_sense_are_refused(flags: int, error: type[LinuxError]) -> None:
    with pytest.raises(error):
        check_flags(CloneArgs(flags))


async def test_a_joiner_sleeps_until_the_thread_clears_its_tid() -> None:
    async def second(guest: FakeContext) -> None:
        assert guest.registers.rsp == CHILD_STACK
        assert guest.registers.fs_base == 0x1234
        assert await guest.syscall(GETPID) == 1
        assert await guest.syscall(GETTID) == 2
        guest.memory.write(A + 64, b"done")
        await guest.syscall(EXIT, 0)

    async def init(guest: FakeContext) -> None:
        guest.child_program = second
        flags = THREAD | abi.CLONE_SETTLS | abi.CLONE_PARENT_SETTID | abi.CLONE_CHILD_CLEARTID
        tid = await guest.syscall(CLONE, flags, CHILD_STACK, A, A, 0x1234)
        assert tid == 2
        while (word := int.from_bytes(guest.memory.read(A, 4), "little")) != 0:
            assert word == tid
            await guest.syscall(FUTEX, A, 0, word, 0, 0, 0)
        assert guest.memory.read(A + 64, 4) == b"done"

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0
        assert not sandbox.kernel.futexes.waiters


async def test_forked_memory_is_a_copy_and_vforked_memory_is_not() -> None:
    async def writer(guest: FakeContext) -> None:
        guest.memory.write(A, b"child")
        await guest.syscall(EXIT, 0)

    async def init(guest: FakeContext) -> None:
        guest.child_program = writer
        guest.memory.write(A, b"alone")
        await guest.syscall(FORK)
        await guest.syscall(WAIT4, -1, 0, 0, 0)
        assert guest.memory.read(A, 5) == b"alone"
        await guest.syscall(VFORK)
        assert guest.memory.read(A, 5) == b"child"  # without waiting: vfork returned after the child's exit
        assert await guest.syscall(WAIT4, -1, 0, 0, 0) == 3

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0


async def test_exit_group_ends_threads_that_sleep() -> None:
    async def sleeper(guest: FakeContext) -> None:
        await guest.syscall(34)

    async def init(guest: FakeContext) -> None:
        guest.child_program = sleeper
        for _ in range(3):
            await guest.syscall(CLONE, THREAD, CHILD_STACK, 0, 0, 0)
        await guest.syscall(EXIT_GROUP, 9)

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 9 << 8
        assert not sandbox.kernel.threads


async def test_a_process_outlives_its_leader_and_reports_the_last_exit() -> None:
    async def second(guest: FakeContext) -> None:
        await guest.syscall(24)
        await guest.syscall(24)
        await guest.syscall(EXIT, 4)

    async def child(guest: FakeContext) -> None:
        guest.child_program = second
        await guest.syscall(CLONE, THREAD, CHILD_STACK, 0, 0, 0)
        await guest.syscall(EXIT, 3)

    async def init(guest: FakeContext) -> None:
        guest.child_program = child
        pid = await guest.syscall(FORK)
        assert await guest.syscall(WAIT4, pid, A, 0, 0) == pid
        assert guest.memory.read(A, 4) == (4 << 8).to_bytes(4, "little")

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0


async def test_clone3_gives_the_pid_asked_for_and_a_pidfd_that_turns_readable() -> None:
    async def child(guest: FakeContext) -> None:
        await guest.syscall(EXIT, 6)

    async def init(guest: FakeContext) -> None:
        guest.child_program = child
        guest.memory.write(A + 256, struct.pack("<i", 77))
        guest.memory.write(A, abi.CLONE_ARGS.pack(abi.CLONE_PIDFD, A + 128, 0, 0, 17, 0, 0, 0, A + 256, 1, 0))
        assert await guest.syscall(CLONE3, A, abi.CLONE_ARGS.size) == 77
        assert await guest.syscall(CLONE3, A, abi.CLONE_ARGS.size) == -EEXIST.errno
        fd = struct.unpack("<i", guest.memory.read(A + 128, 4))[0]
        assert await guest.syscall(PIDFD_OPEN, 77, 0) != fd
        assert await guest.syscall(WAITID, 3, fd, A, 4, 0) == 0
        assert struct.unpack("<7i", guest.memory.read(A, 28))[6] == 6
        assert await guest.syscall(PIDFD_OPEN, 77, 0) == -ESRCH.errno
        assert await guest.syscall(WAITID, 3, 99, A, 4, 0) == -EBADF.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0


@pytest.mark.parametrize("fields", [
    (0, 0, 0, 0, 256, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 17, 0x1000, 0, 0, 0, 0, 0),
    (1 << 40, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0),
    (abi.CLONE_PARENT, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 17, 0, 0, 0, 0, 1, 0),
])  # fmt: skip
async def test_clone3_refuses_nonsense(fields: tuple[int, ...]) -> None:
    async def init(guest: FakeContext) -> None:
        guest.memory.write(A, abi.CLONE_ARGS.pack(*fields))
        assert await guest.syscall(CLONE3, A, abi.CLONE_ARGS.size) == -EINVAL.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(init) == 0
