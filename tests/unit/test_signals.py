"""Signals as guests see them: sending, handlers, restarts, stops, queues, permission."""

from __future__ import annotations

import struct

from sandbox_of_coroutines import A, Sandbox

import asyncsentry.syscalls.clocks
from asyncsentry.abi import signal_h as abi
from asyncsentry.errnos import EAGAIN, EINTR, EINVAL, EPERM, ESRCH
from asyncsentry.platforms.fake import FakeContext, Program
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.tasks.process import Process
from asyncsentry.tasks.signals import SigInfo, send_to_process

RT_SIGACTION, RT_SIGPROCMASK, PAUSE, GETPID, FORK, KILL, WAIT4 = 13, 14, 34, 39, 57, 62, 61
RT_SIGPENDING, RT_SIGTIMEDWAIT, RT_SIGQUEUEINFO, RT_SIGSUSPEND, SIGALTSTACK, TGKILL = 127, 128, 129, 130, 131, 234
NANOSLEEP, SETPGID, EXIT_GROUP = 35, 109, 231
HANDLER, RESTORER, STACK_TOP, SCRATCH = 0x5000, 0x6000, A + 0x8000, A + 0xC000
U64 = struct.Struct("<Q")


assert asyncsentry.syscalls.clocks  # declares the calls before the dispatch table is made


async def idle(guest: FakeContext) -> None:
    while True:
        await guest.syscall(PAUSE)


async def start_init(sandbox: Sandbox, program: Program = idle) -> Process:
    """Starts a process with pid 1, as the first of a container."""
    sandbox.kernel._next_pid = 1
    return await sandbox.spawn(program)


async def run(sandbox: Sandbox, program: Program, credentials: Credentials | None = None) -> int:
    """Runs a program as pid 2, beside an idle init, since init is deaf to most signals."""
    await start_init(sandbox)
    return await sandbox.run(program, credentials)


def mask(*signals: int) -> int:
    return sum(1 << signo - 1 for signo in signals)


async def catch(guest: FakeContext, signo: int, handler: Program, flags: int = 0, blocked: int = 0,
                address: int = HANDLER) -> None:
    guest.registers.rsp = STACK_TOP
    guest.handlers[address] = handler
    flags |= abi.SA_RESTORER | abi.SA_SIGINFO
    guest.memory.write(SCRATCH, abi.SIGACTION.pack(address, flags, RESTORER, blocked))
    assert await guest.syscall(RT_SIGACTION, signo, SCRATCH, 0, 8) == 0


async def block(guest: FakeContext, signals: int, how: int = abi.SIG_BLOCK) -> int:
    guest.memory.write(SCRATCH, U64.pack(signals))
    return await guest.syscall(RT_SIGPROCMASK, how, SCRATCH, SCRATCH + 8, 8)


async def kill_self(guest: FakeContext, signo: int) -> int:
    return await guest.syscall(KILL, await guest.syscall(GETPID), signo)


async def test_a_handler_runs_with_signal_number_and_siginfo_and_the_call_keeps_its_result() -> None:
    seen = []

    async def handler(guest: FakeContext) -> None:
        signo, _, code, pid, uid = struct.unpack("<iii4xII", guest.memory.read(guest.registers.rsi, 24))
        seen.append((guest.registers.rdi, signo, code, pid, uid))
        assert guest.registers.rsp % 16 == 8
        assert U64.unpack(guest.memory.read(guest.registers.rsp, 8))[0] == RESTORER

    async def program(guest: FakeContext) -> None:
        await catch(guest, abi.SIGUSR1, handler)
        guest.registers.rbx = 77
        assert await kill_self(guest, abi.SIGUSR1) == 0
        assert guest.registers.rbx == 77
        assert guest.registers.rsp == STACK_TOP

    async with Sandbox() as sandbox:
        assert await run(sandbox, program) == 0
    assert seen == [(abi.SIGUSR1, abi.SIGUSR1, abi.SI_USER, 2, 0)]


async def test_an_unhandled_signal_ends_the_process_with_its_number() -> None:
    async def program(guest: FakeContext) -> None:
        await kill_self(guest, abi.SIGSEGV)
        raise AssertionError("survived")

    async with Sandbox() as sandbox:
        assert await run(sandbox, program) == abi.SIGSEGV


async def test_init_survives_what_it_has_no_handler_for_even_sigkill() -> None:
    async def program(guest: FakeContext) -> None:
        for signo in (abi.SIGTERM, abi.SIGKILL, abi.SIGSTOP, abi.SIGSEGV):
            assert await kill_self(guest, signo) == 0
        await guest.syscall(EXIT_GROUP, 3)

    async with Sandbox() as sandbox:
        process = await start_init(sandbox, program)
        await sandbox.until(lambda: process.is_zombie)
        assert process.exit_status == 3 << 8


async def test_pause_ends_with_eintr_after_a_handler() -> None:
    async def parent(guest: FakeContext) -> None:
        pid = await guest.syscall(GETPID)
        await catch(guest, abi.SIGUSR1, _do_nothing)

        async def child(child_guest: FakeContext) -> None:
            await child_guest.syscall(KILL, pid, abi.SIGUSR1)

        guest.child_program = child
        await guest.syscall(FORK)
        assert await guest.syscall(PAUSE) == -EINTR.errno

    async with Sandbox() as sandbox:
        assert await run(sandbox, parent) == 0


async def _do_nothing(guest: FakeContext) -> None:
    pass


async def test_wait4_is_restarted_with_sa_restart_and_interrupted_without() -> None:
    async def parent(guest: FakeContext) -> None:
        pid = await guest.syscall(GETPID)

        async def signaller(child: FakeContext) -> None:
            await child.syscall(KILL, pid, abi.SIGUSR1)
            await child.syscall(PAUSE)

        guest.child_program = signaller
        await catch(guest, abi.SIGUSR1, _do_nothing)
        first = await guest.syscall(FORK)
        assert await guest.syscall(WAIT4, first, 0, 0, 0) == -EINTR.errno

        async def reaper(child: FakeContext) -> None:
            await child.syscall(KILL, pid, abi.SIGUSR1)
            await child.syscall(KILL, first, abi.SIGTERM)

        await catch(guest, abi.SIGUSR1, _do_nothing, abi.SA_RESTART)
        guest.child_program = reaper
        await guest.syscall(FORK)
        assert await guest.syscall(WAIT4, first, 0, 0, 0) == first

    async with Sandbox() as sandbox:
        assert await run(sandbox, parent) == 0


async def test_a_blocked_signal_waits_once_and_a_real_time_signal_each_time_in_order() -> None:
    seen = []

    async def handler(guest: FakeContext) -> None:
        seen.append((guest.registers.rdi, U64.unpack(guest.memory.read(guest.registers.rsi + 24, 8))[0]))

    async def program(guest: FakeContext) -> None:
        for signo in (abi.SIGUSR1, 40):
            await catch(guest, signo, handler)
        await block(guest, mask(abi.SIGUSR1, 40))
        pid = await guest.syscall(GETPID)
        for value in range(3):
            for signo in (40, abi.SIGUSR1):
                info = struct.pack("<iii4xIIQ", 0, 0, abi.SI_QUEUE, pid, 0, value)
                guest.memory.write(SCRATCH, info.ljust(128, b"\0"))
                assert await guest.syscall(RT_SIGQUEUEINFO, pid, signo, SCRATCH) == 0
        assert await guest.syscall(RT_SIGPENDING, SCRATCH, 8) == 0
        assert U64.unpack(guest.memory.read(SCRATCH, 8))[0] == mask(abi.SIGUSR1, 40)
        assert seen == []
        assert await block(guest, 0, abi.SIG_SETMASK) == 0

    async with Sandbox() as sandbox:
        assert await run(sandbox, program) == 0
    # Frames stack up: the first to be entered is the last to run to its end on real hardware, too.
    assert sorted(seen) == [(10, 0), (40, 0), (40, 1), (40, 2)]


async def test_a_handler_blocks_its_own_signal_and_sa_mask_and_the_mask_comes_back() -> None:
    seen = []

    async def handler(guest: FakeContext) -> None:
        await guest.syscall(RT_SIGPROCMASK, abi.SIG_BLOCK, 0, SCRATCH + 64, 8)
        seen.append(U64.unpack(guest.memory.read(SCRATCH + 64, 8))[0])

    async def program(guest: FakeContext) -> None:
        await block(guest, mask(abi.SIGHUP))
        await catch(guest, abi.SIGUSR1, handler, blocked=mask(abi.SIGUSR2, abi.SIGKILL))
        await kill_self(guest, abi.SIGUSR1)
        await catch(guest, abi.SIGUSR1, handler, abi.SA_NODEFER | abi.SA_RESETHAND)
        await kill_self(guest, abi.SIGUSR1)
        await block(guest, 0)
        seen.append(U64.unpack(guest.memory.read(SCRATCH + 8, 8))[0])
        await guest.syscall(RT_SIGACTION, abi.SIGUSR1, 0, SCRATCH, 8)
        assert U64.unpack(guest.memory.read(SCRATCH, 8))[0] == abi.SIG_DFL

    async with Sandbox() as sandbox:
        assert await run(sandbox, program) == 0
    assert seen == [mask(abi.SIGHUP, abi.SIGUSR1, abi.SIGUSR2), mask(abi.SIGHUP), mask(abi.SIGHUP)]


async def test_sigsuspend_runs_the_handler_under_its_mask_and_puts_the_old_one_back() -> None:
    seen = []

    async def handler(guest: FakeContext) -> None:
        seen.append(guest.registers.rdi)

    async def program(guest: FakeContext) -> None:
        await catch(guest, abi.SIGUSR1, handler)
        await block(guest, mask(abi.SIGUSR1))
        await kill_self(guest, abi.SIGUSR1)
        guest.memory.write(SCRATCH, U64.pack(0))
        assert await guest.syscall(RT_SIGSUSPEND, SCRATCH, 8) == -EINTR.errno
        assert seen == [abi.SIGUSR1]
        await block(guest, 0)
        assert U64.unpack(guest.memory.read(SCRATCH + 8, 8))[0] == mask(abi.SIGUSR1)

    async with Sandbox() as sandbox:
        assert await run(sandbox, program) == 0


async def test_sigtimedwait_takes_a_pending_signal_or_gives_eagain() -> None:
    async def program(guest: FakeContext) -> None:
        await block(guest, mask(abi.SIGCHLD, abi.SIGUSR1))
        await kill_self(guest, abi.SIGUSR1)
        await kill_self(guest, abi.SIGCHLD)  # blocked, so it waits although its default is to be ignored
        guest.memory.write(SCRATCH, U64.pack(mask(abi.SIGCHLD, abi.SIGUSR1)) + struct.pack("<qq", 0, 0))
        wait = (RT_SIGTIMEDWAIT, SCRATCH, SCRATCH + 128, SCRATCH + 8, 8)
        assert await guest.syscall(*wait) == abi.SIGUSR1
        assert struct.unpack("<iii", guest.memory.read(SCRATCH + 128, 12)) == (abi.SIGUSR1, 0, abi.SI_USER)
        assert await guest.syscall(*wait) == abi.SIGCHLD
        assert await guest.syscall(*wait) == -EAGAIN.errno

    async with Sandbox() as sandbox:
        assert await run(sandbox, program) == 0


async def test_a_stopped_child_reports_to_its_parent_and_goes_on_with_sigcont() -> None:
    async def child(guest: FakeContext) -> None:
        await kill_self(guest, abi.SIGSTOP)
        await guest.syscall(EXIT_GROUP, 5)

    async def parent(guest: FakeContext) -> None:
        guest.child_program = child
        pid = await guest.syscall(FORK)
        status = []
        for _ in range(3):
            assert await guest.syscall(WAIT4, pid, A, 2 | 8, 0) == pid
            status.append(struct.unpack("<i", guest.memory.read(A, 4))[0])
            if len(status) == 1:
                assert await guest.syscall(KILL, pid, abi.SIGCONT) == 0
        assert status == [abi.SIGSTOP << 8 | 0x7F, 0xFFFF, 5 << 8]

    async with Sandbox() as sandbox:
        assert await run(sandbox, parent) == 0


async def test_sigkill_ends_a_stopped_process() -> None:
    async def child(guest: FakeContext) -> None:
        await kill_self(guest, abi.SIGSTOP)

    async def parent(guest: FakeContext) -> None:
        guest.child_program = child
        pid = await guest.syscall(FORK)
        assert await guest.syscall(WAIT4, pid, A, 2, 0) == pid
        assert await guest.syscall(KILL, pid, abi.SIGKILL) == 0
        assert await guest.syscall(WAIT4, pid, A, 2, 0) == pid
        assert struct.unpack("<i", guest.memory.read(A, 4))[0] == abi.SIGKILL

    async with Sandbox() as sandbox:
        assert await run(sandbox, parent) == 0


async def test_kill_asks_for_permission_and_knows_its_targets() -> None:
    async def program(guest: FakeContext) -> None:
        assert await guest.syscall(KILL, 1, abi.SIGTERM) == -EPERM.errno
        assert await guest.syscall(KILL, 1, 0) == -EPERM.errno
        assert await guest.syscall(KILL, 4000, 0) == -ESRCH.errno
        assert await guest.syscall(KILL, -4000, 0) == -ESRCH.errno
        assert await kill_self(guest, 65) == -EINVAL.errno
        assert await kill_self(guest, 0) == 0
        assert await guest.syscall(KILL, 0, 0) == 0
        assert await guest.syscall(TGKILL, 1, 2, 0) == -ESRCH.errno
        assert await guest.syscall(TGKILL, 2, 2, 0) == 0
        assert await guest.syscall(TGKILL, 2, 0, 0) == -EINVAL.errno

    async with Sandbox() as sandbox:
        assert await run(sandbox, program, Credentials.for_user(1000, 1000)) == 0


async def test_forged_siginfo_of_the_kernel_is_refused_for_others() -> None:
    async def program(guest: FakeContext) -> None:
        guest.memory.write(SCRATCH, struct.pack("<iii", 0, 0, abi.SI_KERNEL).ljust(128, b"\0"))
        assert await guest.syscall(RT_SIGQUEUEINFO, 1, abi.SIGCHLD, SCRATCH) == -EPERM.errno
        assert await guest.syscall(RT_SIGQUEUEINFO, 2, abi.SIGCHLD, SCRATCH) == 0

    async with Sandbox() as sandbox:
        assert await run(sandbox, program) == 0


async def test_a_handler_runs_on_the_alternate_stack_and_sigaltstack_says_so() -> None:
    seen = []

    async def handler(guest: FakeContext) -> None:
        seen.append(guest.registers.rsp)
        await guest.syscall(SIGALTSTACK, 0, SCRATCH)
        seen.append(struct.unpack("<Qi4xQ", guest.memory.read(SCRATCH, 24)))
        assert await guest.syscall(SIGALTSTACK, SCRATCH, 0) == -EPERM.errno

    async def program(guest: FakeContext) -> None:
        guest.memory.write(SCRATCH, struct.pack("<Qi4xQ", A + 0x1000, 0, 0x2000))
        await guest.syscall(SIGALTSTACK, SCRATCH, 0)
        await catch(guest, abi.SIGUSR1, handler, abi.SA_ONSTACK)
        await kill_self(guest, abi.SIGUSR1)

    async with Sandbox() as sandbox:
        assert await run(sandbox, program) == 0
    assert A + 0x1000 < seen[0] < A + 0x3000
    assert seen[1][:2] == (A + 0x1000, abi.SS_ONSTACK)


async def test_a_signal_kills_if_the_handler_has_no_stack() -> None:
    async def program(guest: FakeContext) -> None:
        await catch(guest, abi.SIGUSR1, _do_nothing)
        guest.registers.rsp = 0x40
        await kill_self(guest, abi.SIGUSR1)
        raise AssertionError("survived")

    async with Sandbox() as sandbox:
        assert await run(sandbox, program) == abi.SIGSEGV


async def test_the_parent_that_ignores_sigchld_gets_no_zombies() -> None:
    async def child(guest: FakeContext) -> None:
        await guest.syscall(EXIT_GROUP, 1)

    async def parent(guest: FakeContext) -> None:
        guest.memory.write(SCRATCH, abi.SIGACTION.pack(abi.SIG_IGN, 0, 0, 0))
        await guest.syscall(RT_SIGACTION, abi.SIGCHLD, SCRATCH, 0, 8)
        guest.child_program = child
        await guest.syscall(FORK)
        assert await guest.syscall(WAIT4, -1, 0, 0, 0) == -10

    async with Sandbox() as sandbox:
        assert await run(sandbox, parent) == 0


async def test_no_more_real_time_signals_are_queued_than_the_limit_allows() -> None:
    async def program(guest: FakeContext) -> None:
        await block(guest, mask(40))
        pid = await guest.syscall(GETPID)
        guest.memory.write(SCRATCH, struct.pack("<iii", 0, 0, abi.SI_QUEUE).ljust(128, b"\0"))
        results = [await guest.syscall(RT_SIGQUEUEINFO, pid, 40, SCRATCH) for _ in range(6)]
        assert results == [0, 0, 0, 0, -EAGAIN.errno, -EAGAIN.errno]

    async with Sandbox() as sandbox:
        await start_init(sandbox)
        process = await sandbox.spawn(program)
        process.limits.set(11, 4, 4)
        await sandbox.until(lambda: process.is_zombie)
        assert process.exit_status == 0
        assert set(sandbox.kernel.queued_signals.by_uid.values()) == {0}


async def test_a_sleep_goes_on_after_a_stop_and_ends_with_the_time_left_after_a_handler() -> None:
    async def sleeper(guest: FakeContext) -> None:
        guest.memory.write(A, struct.pack("<qq", 10, 0))
        await catch(guest, abi.SIGUSR1, _do_nothing)
        assert await guest.syscall(NANOSLEEP, A, A + 16) == -EINTR.errno
        assert struct.unpack("<qq", guest.memory.read(A + 16, 16)) == (6, 0)

    async with Sandbox() as sandbox:
        await start_init(sandbox)
        process = await sandbox.spawn(sleeper)
        thread = process.leader
        await sandbox.until(lambda: thread.is_blocked)
        sandbox.clock.advance(3_000_000_000)
        send_to_process(process, SigInfo(abi.SIGSTOP))
        await sandbox.until(lambda: thread.is_stopped)
        sandbox.clock.advance(1_000_000_000)
        send_to_process(process, SigInfo(abi.SIGCONT))
        await sandbox.until(lambda: not thread.is_stopped and thread.is_blocked)
        assert not process.is_zombie
        send_to_process(process, SigInfo(abi.SIGUSR1))
        await sandbox.until(lambda: process.is_zombie)
        assert process.exit_status == 0


async def test_a_process_signal_reaches_a_thread_even_if_its_last_one_was_taken_by_another() -> None:
    async def sleeper(guest: FakeContext) -> None:
        await guest.syscall(PAUSE)

    async with Sandbox() as sandbox:
        await start_init(sandbox)
        process = await sandbox.spawn(sleeper)
        thread = process.leader
        await sandbox.until(lambda: thread.is_blocked)
        thread.interrupt_pending = True  # as after another thread has taken what this one was to deliver
        send_to_process(process, SigInfo(abi.SIGTERM))
        await sandbox.until(lambda: process.is_zombie)
        assert process.exit_status == abi.SIGTERM


async def test_stopped_processes_get_sighup_and_sigcont_when_their_group_is_orphaned() -> None:
    seen = []

    async def handler(guest: FakeContext) -> None:
        seen.append(guest.registers.rdi)

    async def stopped(guest: FakeContext) -> None:
        await catch(guest, abi.SIGHUP, handler)
        await catch(guest, abi.SIGCONT, handler, address=HANDLER + 16)
        await kill_self(guest, abi.SIGSTOP)

    async def leader(guest: FakeContext) -> None:
        await guest.syscall(SETPGID, 0, 0)
        guest.child_program = stopped
        await guest.syscall(FORK)
        assert await guest.syscall(WAIT4, -1, 0, 2, 0) == 4

    async def program(guest: FakeContext) -> None:
        guest.child_program = leader
        assert await guest.syscall(FORK) == 3
        assert await guest.syscall(WAIT4, 3, 0, 0, 0) == 3

    async with Sandbox() as sandbox:
        await run(sandbox, program)
        await sandbox.until(lambda: 4 not in sandbox.kernel.processes or sandbox.kernel.processes[4].is_zombie)
    assert sorted(seen) == [abi.SIGHUP, abi.SIGCONT]
