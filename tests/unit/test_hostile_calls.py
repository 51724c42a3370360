"""What random calls once broke: each would have been an unhandled error in the sentry."""

from __future__ import annotations

import pytest
from guest_thread import A, Guest, make_guest

from asyncsentry.abi import futex_h
from asyncsentry.abi import signal_h as abi
from asyncsentry.abi.resource_h import RLIMIT_SIGPENDING
from asyncsentry.errnos import EINVAL
from asyncsentry.gate import OpenGate
from asyncsentry.syscalls import kill
from asyncsentry.syscalls.dispatch import COUNTED_MAX, Dispatch
from asyncsentry.tasks.process import Process
from asyncsentry.tasks.robust import release_robust_list
from asyncsentry.tasks.signals.send import notify_parent


@pytest.fixture
async def guest() -> Guest:
    return await make_guest()


async def test_a_negative_signal_number_is_no_signal(guest: Guest) -> None:
    guest.kernel.processes[guest.thread.process.pid] = guest.thread.process
    for signo in (-1, -(1 << 31)):
        with pytest.raises(EINVAL):
            kill.rt_sigqueueinfo(guest.thread, guest.thread.process.pid, signo, A)


async def test_a_robust_list_may_have_offsets_that_lead_nowhere(guest: Guest) -> None:
    for offset in (-(1 << 63), -A - 0x10000, (1 << 63) - 1):
        guest.memory.write_struct(A, futex_h.ROBUST_LIST_HEAD, A + 64, offset, 0)
        guest.memory.write_u64(A + 64, A)
        guest.thread.robust_list = (A, 24)
        await release_robust_list(guest.thread)


async def test_a_child_whose_real_time_signal_finds_no_room_still_dies(guest: Guest) -> None:
    parent = guest.thread.process
    parent.limits.set(RLIMIT_SIGPENDING, 0, 0)
    child = Process(guest.kernel, 101, parent, parent.group)
    child.exit_signal, child.exit_status, child.last_credentials = abi.SIGRTMIN, 0, guest.thread.credentials
    guest.thread.signal_mask = (1 << 64) - 1
    assert not notify_parent(child, abi.CLD_EXITED)
    assert not parent.signals.pending.mask


async def test_calls_of_made_up_numbers_are_not_remembered(guest: Guest) -> None:
    dispatch = Dispatch()
    for number in range(COUNTED_MAX - 1, COUNTED_MAX + 1000):
        dispatch._absent(number)
    assert len(dispatch.unimplemented) == 2


async def test_nobody_waits_at_the_gate_of_a_dead_context(guest: Guest) -> None:
    await OpenGate(guest.thread.context.gate.get_loop())
