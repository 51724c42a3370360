"""Clocks, sleeps and timers as guests see them, on a clock that stands still until told."""

from __future__ import annotations

import struct

from guest_thread import A, Guest, make_guest
from sandbox_of_coroutines import Sandbox
from test_signals import catch, idle

from asyncsentry.abi import signal_h, time_h
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import EINVAL, EOPNOTSUPP, EPERM, LinuxError
from asyncsentry.platforms.fake import FakeContext
from asyncsentry.syscalls import clocks, timers
from asyncsentry.tasks.facts import GuestFacts
from asyncsentry.tasks.process import Process
from asyncsentry.tasks.signals import ALL_SIGNALS, SigInfo
from asyncsentry.tasks.timebase import Alarm, TimeBase
from asyncsentry.tasks.timers import ProcessTimers

SETITIMER, ALARM, TIMER_CREATE, TIMER_SETTIME, CLOCK_NANOSLEEP, PAUSE = 38, 37, 222, 223, 230, 34
MS = 1_000_000


def set_timer(guest: Guest, timer_id: int, value_ns: int, interval_ns: int = 0, flags: int = 0) -> tuple[int, ...]:
    guest.memory.write(A, struct.pack("<4q", *divmod(interval_ns, NS_PER_SECOND), *divmod(value_ns, NS_PER_SECOND)))
    assert timers.timer_settime(guest.thread, timer_id, flags, A, A + 64) == 0
    return struct.unpack("<4q", guest.memory.read(A + 64, 32))


def get_timer(guest: Guest, timer_id: int) -> tuple[int, ...]:
    assert timers.timer_gettime(guest.thread, timer_id, A) == 0
    return struct.unpack("<4q", guest.memory.read(A, 32))


def create_timer(guest: Guest, clock_id: int = 1, signo: int = 40, notify: int = 0) -> int:
    guest.memory.write(A, signal_h.SIGEVENT.pack(9, signo, notify, 0))
    assert timers.timer_create(guest.thread, clock_id, A, A + 128) == 0
    return guest.memory.read_i32(A + 128)


def take(guest: Guest) -> SigInfo | None:
    return guest.thread.take_pending_signal(ALL_SIGNALS)


def error_of(call: object, *arguments: object) -> type[LinuxError] | None:
    try:
        call(*arguments)  # type: ignore[operator]
    except LinuxError as error:
        return type(error)
    return None


async def blocking_guest() -> Guest:
    guest = await make_guest()
    guest.thread.signal_mask = ALL_SIGNALS
    return guest


async def test_a_posix_timer_sends_its_signal_once_with_its_value() -> None:
    guest = await blocking_guest()
    timer_id = create_timer(guest)
    assert set_timer(guest, timer_id, 5 * NS_PER_SECOND) == (0, 0, 0, 0)
    assert get_timer(guest, timer_id) == (0, 0, 5, 0)
    text = GuestFacts().timers_text(guest.thread.process)
    assert text == "ID: 0\nsignal: 40/0000000000000009\nnotify: signal/pid.100\nClockID: 1\n"
    guest.clock.advance(5 * NS_PER_SECOND - 1)
    assert take(guest) is None
    assert get_timer(guest, timer_id) == (0, 0, 0, 1)
    guest.clock.advance(1)
    info = take(guest)
    assert info is not None
    assert (info.signo, info.code, info.timerid, info.value, info.overrun) == (40, signal_h.SI_TIMER, timer_id, 9, 0)
    assert get_timer(guest, timer_id) == (0, 0, 0, 0)
    guest.clock.advance(60 * NS_PER_SECOND)
    assert take(guest) is None


async def test_a_periodic_timer_counts_the_periods_its_signal_waited() -> None:
    guest = await blocking_guest()
    timer_id = create_timer(guest)
    set_timer(guest, timer_id, 10 * MS, 10 * MS)
    guest.clock.advance(35 * MS)
    assert get_timer(guest, timer_id) == (0, 10 * MS, 0, 5 * MS)
    info = take(guest)
    assert info is not None
    assert info.overrun == 2
    assert timers.timer_getoverrun(guest.thread, timer_id) == 2
    guest.clock.advance(5 * MS)
    info = take(guest)
    assert info is not None
    assert info.overrun == 0
    assert set_timer(guest, timer_id, 0) == (0, 10 * MS, 0, 10 * MS)
    guest.clock.advance(NS_PER_SECOND)
    assert take(guest) is None


async def test_a_timer_that_notifies_nobody_still_counts_down() -> None:
    guest = await blocking_guest()
    timer_id = create_timer(guest, notify=signal_h.SIGEV_NONE)
    set_timer(guest, timer_id, 10 * MS, 10 * MS)
    guest.clock.advance(13 * MS)
    assert take(guest) is None
    assert get_timer(guest, timer_id) == (0, 10 * MS, 0, 7 * MS)


async def test_an_absolute_deadline_in_the_past_fires_at_once_and_deleting_ends_a_timer() -> None:
    guest = await blocking_guest()
    timer_id = create_timer(guest, clock_id=0)
    set_timer(guest, timer_id, 1, flags=time_h.TIMER_ABSTIME)
    guest.clock.advance(0)
    assert take(guest) is not None
    set_timer(guest, timer_id, NS_PER_SECOND)
    assert timers.timer_delete(guest.thread, timer_id) == 0
    guest.clock.advance(2 * NS_PER_SECOND)
    assert take(guest) is None
    assert error_of(timers.timer_delete, guest.thread, timer_id) is EINVAL


async def test_timer_create_refuses_what_linux_refuses() -> None:
    guest = await make_guest()
    thread = guest.thread
    for event, clock_id, expected in (
        ((0, 65, 0, 0), 1, EINVAL), ((0, 10, 7, 0), 1, EINVAL), ((0, 10, 4, 4000), 1, EINVAL),
        ((0, 10, 0, 0), 77, EINVAL), ((0, 10, 0, 0), 4, EOPNOTSUPP),
        ((0, 10, 4, 100), 1, None), ((0, 0, 1, 0), 2, None),
    ):  # fmt: skip
        guest.memory.write(A, signal_h.SIGEVENT.pack(*event))
        assert error_of(timers.timer_create, thread, clock_id, A, A + 128) is expected


async def test_setitimer_sends_sigalrm_periodically_and_tells_what_was_left() -> None:
    guest = await blocking_guest()
    guest.memory.write(A, struct.pack("<4q", 2, 0, 1, 500_000))
    assert timers.setitimer(guest.thread, time_h.ITIMER_REAL, A, 0) == 0
    guest.clock.advance(1500 * MS)
    info = take(guest)
    assert info is not None
    assert (info.signo, info.code) == (signal_h.SIGALRM, signal_h.SI_KERNEL)
    assert timers.getitimer(guest.thread, time_h.ITIMER_REAL, A) == 0
    assert struct.unpack("<4q", guest.memory.read(A, 32)) == (2, 0, 2, 0)
    assert timers.alarm(guest.thread, 10) == 2
    guest.clock.advance(9_700 * MS)
    assert timers.alarm(guest.thread, 0) == 1
    guest.clock.advance(10 * NS_PER_SECOND)
    assert take(guest) is None
    assert error_of(timers.getitimer, guest.thread, 3, A) is EINVAL


async def test_an_ignored_periodic_timer_does_not_keep_the_kernel_busy() -> None:
    guest = await make_guest()
    timer_id = create_timer(guest, signo=signal_h.SIGWINCH)
    set_timer(guest, timer_id, 1, 1)
    fired = 0
    real_call_at = guest.clock.call_at

    def counting_call_at(deadline_ns: int, callback: object) -> object:
        nonlocal fired
        fired += 1
        return real_call_at(deadline_ns, callback)  # type: ignore[arg-type]

    guest.clock.call_at = counting_call_at  # type: ignore[method-assign, assignment]
    guest.clock.advance(100 * MS)
    assert fired <= 101


class CpuTime(TimeBase):
    """A processor clock that a test moves by hand."""

    is_cpu = True

    def __init__(self) -> None:
        self.used_ns = 0
        self.looked = 0

    def now_ns(self) -> int:
        self.looked += 1
        return self.used_ns

    def shortest_wait_ns(self, remaining_ns: int) -> int:
        return remaining_ns


async def test_an_alarm_on_processor_time_rarely_looks_while_the_guest_idles_and_never_fires_early() -> None:
    guest = await make_guest()
    base = CpuTime()
    rung: list[int] = []

    def ring() -> None:
        rung.append(base.used_ns)

    alarm = Alarm(guest.kernel, base, ring)
    alarm.arm(10 * MS)
    guest.clock.advance(60 * NS_PER_SECOND)
    assert rung == []
    assert base.looked < 260
    base.used_ns = 11 * MS
    guest.clock.advance(NS_PER_SECOND)
    assert rung == [11 * MS]


async def test_clocks_can_be_read_and_not_set() -> None:
    guest = await make_guest()
    thread = guest.thread
    for clock_id in (0, 1, 2, 3, 4, 5, 6, 7, 11, -6, -2):
        assert clocks.clock_gettime(thread, clock_id, A) == 0
        assert clocks.clock_getres(thread, clock_id, A) == 0
    for clock_id in (10, 12, 99, -1, -800_006):
        assert error_of(clocks.clock_gettime, thread, clock_id, A) is EINVAL
    guest.memory.write(A, struct.pack("<qq", 0, 0))
    assert error_of(clocks.clock_settime, thread, 0, A) is EPERM
    assert error_of(clocks.clock_settime, thread, 1, A) is EINVAL
    assert error_of(clocks.settimeofday, thread, A, 0) is EPERM
    assert clocks.gettimeofday(thread, A, A + 16) == 0
    assert struct.unpack("<qqii", guest.memory.read(A, 24)) == (1_700_000_000, 0, 0, 0)
    assert clocks.time(thread, A) == 1_700_000_000
    assert clocks.times(thread, A) == 100
    guest.memory.write(A, bytes(208))
    assert clocks.adjtimex(thread, A) == time_h.TIME_ERROR
    guest.memory.write(A, b"\1" + bytes(207))
    assert error_of(clocks.adjtimex, thread, A) is EPERM


async def test_an_absolute_sleep_ends_on_time_and_a_bad_time_is_refused() -> None:
    guest = await make_guest()
    start_ns = guest.clock.now_ns(0)
    guest.memory.write(A, struct.pack("<qq", *divmod(start_ns + NS_PER_SECOND, NS_PER_SECOND)))
    task = await guest.start(clocks.clock_nanosleep(guest.thread, 0, time_h.TIMER_ABSTIME, A, 0))
    guest.clock.advance(NS_PER_SECOND)
    assert await task == 0
    guest.memory.write(A, struct.pack("<qq", 0, NS_PER_SECOND))
    task = await guest.start(clocks.nanosleep(guest.thread, A, 0))
    assert isinstance(task.exception(), EINVAL)


async def test_a_guest_wakes_from_pause_when_its_alarm_rings() -> None:
    seen = []

    async def handler(guest: FakeContext) -> None:
        seen.append(guest.registers.rdi)

    async def program(guest: FakeContext) -> None:
        await catch(guest, signal_h.SIGALRM, handler)
        assert await guest.syscall(ALARM, 3) == 0
        assert await guest.syscall(PAUSE) == -4
        await guest.syscall(ALARM, 30)

    async with Sandbox() as sandbox:
        await sandbox.spawn(idle)
        process: Process = await sandbox.spawn(program)
        await sandbox.until(lambda: process.leader.is_blocked)
        sandbox.clock.advance(3 * NS_PER_SECOND)
        await sandbox.until(lambda: process.is_zombie)
        assert process.exit_status == 0
        assert isinstance(process.timers, ProcessTimers)
        sandbox.clock.advance(60 * NS_PER_SECOND)
    assert seen == [signal_h.SIGALRM]


async def test_the_limit_of_processor_time_warns_every_second_and_then_kills() -> None:
    guest = await blocking_guest()
    process = guest.thread.process
    guest.kernel.processes[process.pid] = process
    process.limits.set(0, 2, 4)
    process.timers.cpu_limit.update()
    seen = []
    for second in range(1, 6):
        process.past_usage.user_ns = second * NS_PER_SECOND
        guest.clock.advance(2 * NS_PER_SECOND)
        while (info := take(guest)) is not None:
            seen.append((second, info.signo))
    assert seen == [(2, signal_h.SIGXCPU), (3, signal_h.SIGXCPU)]
    assert guest.thread.pending_signals == 1 << signal_h.SIGKILL - 1
