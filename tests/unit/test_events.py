"""What a program sees of eventfd(2), timerfd_create(2) and signalfd(2)."""

from __future__ import annotations

import struct

import pytest
from guest_thread import A, Guest, awaited, make_guest, settle

from asyncsentry import errnos
from asyncsentry.abi.epoll_h import EPOLL_CTL_ADD, EPOLLIN
from asyncsentry.abi.eventfd_h import EFD_NONBLOCK, EFD_SEMAPHORE
from asyncsentry.abi.fcntl_h import O_NONBLOCK
from asyncsentry.abi.timerfd_h import TFD_NONBLOCK, TFD_TIMER_ABSTIME
from asyncsentry.clock import CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_REALTIME_ALARM, NS_PER_SECOND
from asyncsentry.syscalls import epolls, polling, readwrite
from asyncsentry.syscalls.epolls import epoll_create1, epoll_ctl
from asyncsentry.syscalls.events import (
    eventfd,
    eventfd2,
    signalfd,
    signalfd4,
    timerfd_create,
    timerfd_gettime,
    timerfd_settime,
)
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.waiter import POLLIN, POLLOUT

S = NS_PER_SECOND

read = awaited(readwrite.read)
write = awaited(readwrite.write)
poll = awaited(polling.poll)
epoll_wait = awaited(epolls.epoll_wait)


@pytest.fixture
async def guest() -> Guest:
    return await make_guest()


async def add(guest: Guest, fd: int, value: int) -> int:
    guest.memory.write_u64(A, value)
    return await write(guest.thread, fd, A, 8)


async def take(guest: Guest, fd: int) -> int:
    assert await read(guest.thread, fd, A + 8, 8) == 8
    return guest.memory.read_u64(A + 8)


async def test_eventfd_adds_up_and_is_emptied_by_a_read(guest):
    fd = eventfd2(guest.thread, 3, EFD_NONBLOCK)
    await add(guest, fd, 4)
    assert await take(guest, fd) == 7
    with pytest.raises(errnos.EAGAIN):
        await take(guest, fd)


async def test_eventfd_as_semaphore_gives_ones(guest):
    fd = eventfd2(guest.thread, 2, EFD_NONBLOCK | EFD_SEMAPHORE)
    assert [await take(guest, fd), await take(guest, fd)] == [1, 1]
    with pytest.raises(errnos.EAGAIN):
        await take(guest, fd)


async def test_eventfd_blocks_at_both_ends(guest):
    fd = eventfd(guest.thread, 0)
    other = guest.add_thread()
    taking = await guest.start(take(guest, fd))
    assert await add(other, fd, 5) == 8
    assert await taking == 5
    await add(guest, fd, (1 << 64) - 2)
    adding = await guest.start(add(guest, fd, 1))
    assert not adding.done()
    assert guest.thread.fds.get(fd).poll() & (POLLIN | POLLOUT) == POLLIN
    assert await take(other, fd) == (1 << 64) - 2
    assert await adding == 8


async def test_eventfd_refuses_short_buffers_and_the_error_value(guest):
    fd = eventfd(guest.thread, 1)
    for call in (read(guest.thread, fd, A, 7), write(guest.thread, fd, A, 7), add(guest, fd, (1 << 64) - 1)):
        with pytest.raises(errnos.EINVAL):
            await call
    guest.memory.write_u64(A, 1)
    assert await write(guest.thread, fd, A, 16) == 8


def set_timer(guest: Guest, fd: int, value_ns: int, interval_ns: int = 0, flags: int = 0) -> tuple[int, int]:
    guest.memory.write(A, struct.pack("<qqqq", *divmod(interval_ns, S), *divmod(value_ns, S)))
    assert timerfd_settime(guest.thread, fd, flags, A, A + 32) == 0
    interval_s, interval, value_s, value = struct.unpack("<qqqq", guest.memory.read(A + 32, 32))
    return value_s * S + value, interval_s * S + interval


def time_left(guest: Guest, fd: int) -> int:
    timerfd_gettime(guest.thread, fd, A)
    _, _, seconds, rest = struct.unpack("<qqqq", guest.memory.read(A, 32))
    return seconds * S + rest


async def test_a_timer_is_readable_once_it_expires(guest):
    fd = timerfd_create(guest.thread, CLOCK_MONOTONIC, 0)
    set_timer(guest, fd, 3 * S)
    guest.clock.advance(1 * S)
    assert time_left(guest, fd) == 2 * S
    taking = await guest.start(take(guest, fd))
    guest.clock.advance(2 * S)
    assert await taking == 1
    assert time_left(guest, fd) == 0


async def test_a_periodic_timer_counts_what_nobody_read(guest):
    fd = timerfd_create(guest.thread, CLOCK_MONOTONIC, TFD_NONBLOCK)
    set_timer(guest, fd, 2 * S, 1 * S)
    guest.clock.advance(5 * S + S // 2)
    assert await take(guest, fd) == 4
    assert time_left(guest, fd) == S // 2
    with pytest.raises(errnos.EAGAIN):
        await take(guest, fd)
    guest.clock.advance(S // 2)
    assert await take(guest, fd) == 1
    assert set_timer(guest, fd, 0) == (S, S)
    guest.clock.advance(10 * S)
    with pytest.raises(errnos.EAGAIN):
        await take(guest, fd)


async def test_an_absolute_time_in_the_past_expires_at_once(guest):
    fd = timerfd_create(guest.thread, CLOCK_REALTIME, 0)
    set_timer(guest, fd, guest.clock.now_ns(CLOCK_REALTIME) - 1, flags=TFD_TIMER_ABSTIME)
    guest.clock.advance(0)
    assert await take(guest, fd) == 1
    set_timer(guest, fd, guest.clock.now_ns(CLOCK_REALTIME) + 5 * S, flags=TFD_TIMER_ABSTIME)
    assert time_left(guest, fd) == 5 * S


async def test_timer_arguments_are_checked(guest):
    thread = guest.thread
    for clock_id, flags in ((2, 0), (CLOCK_MONOTONIC, 1)):
        with pytest.raises(errnos.EINVAL):
            timerfd_create(thread, clock_id, flags)
    thread.credentials = Credentials.for_user(1000, 1000)
    with pytest.raises(errnos.EPERM):
        timerfd_create(thread, CLOCK_REALTIME_ALARM, 0)
    fd = timerfd_create(thread, CLOCK_MONOTONIC, 0)
    guest.memory.write(A, struct.pack("<qqqq", 0, 0, 0, S))
    with pytest.raises(errnos.EINVAL):
        timerfd_settime(thread, fd, 0, A, 0)
    with pytest.raises(errnos.EINVAL):
        timerfd_gettime(thread, eventfd(thread, 0), A)


def open_signalfd(guest: Guest, *signals: int, flags: int = 0) -> int:
    mask = sum(1 << (signo - 1) for signo in signals)
    guest.thread.signal_mask = mask
    guest.memory.write_u64(A, mask)
    return signalfd4(guest.thread, -1, A, 8, flags)


async def test_blocked_signals_are_read(guest):
    fd = open_signalfd(guest, 10, 12)
    reading = await guest.start(read(guest.thread, fd, A, 1024))
    assert not reading.done()
    guest.thread.raise_signal(10)
    assert await reading == 128
    signo, _, _, pid = struct.unpack("<iiiI", guest.memory.read(A, 16))
    assert (signo, pid) == (10, guest.thread.process.pid)


async def test_signalfd_polls_for_its_own_signals_only(guest):
    fd = open_signalfd(guest, 10, flags=O_NONBLOCK)
    guest.thread.signal_mask |= 1 << 11
    guest.thread.raise_signal(12)
    guest.memory.write(A, struct.pack("<ihh", fd, POLLIN, 0))
    assert await poll(guest.thread, A, 1, 0) == 0
    with pytest.raises(errnos.EAGAIN):
        await read(guest.thread, fd, A, 128)
    polling = await guest.start(poll(guest.thread, A, 1, -1))
    guest.memory.write(A, struct.pack("<ihh", fd, POLLIN, 0))
    guest.thread.raise_signal(10)
    assert await polling == 1


async def test_signalfd_in_epoll(guest):
    fd, ep = open_signalfd(guest, 10), epoll_create1(guest.thread, 0)
    guest.memory.write(A, struct.pack("<IQ", EPOLLIN, 9))
    epoll_ctl(guest.thread, ep, EPOLL_CTL_ADD, fd, A)
    waiting = await guest.start(epoll_wait(guest.thread, ep, A, 4, -1))
    guest.thread.raise_signal(10)
    assert await waiting == 1
    await guest.thread.fds.close(fd)
    await settle()
    assert not guest.thread.signal_queue


async def test_signalfd_changes_its_mask_and_checks_its_arguments(guest):
    fd = open_signalfd(guest, 10)
    guest.memory.write_u64(A, 1 << 11 | 1 << 8)
    assert signalfd(guest.thread, fd, A, 8) == fd
    assert guest.thread.fds.get(fd).mask == 1 << 11
    with pytest.raises(errnos.EINVAL):
        signalfd(guest.thread, -1, A, 4)
    with pytest.raises(errnos.EINVAL):
        signalfd(guest.thread, eventfd(guest.thread, 0), A, 8)
    with pytest.raises(errnos.EINVAL):
        await read(guest.thread, fd, A, 127)


async def test_fdinfo_tells_what_a_descriptor_holds(guest):
    fds = guest.thread.fds
    counter, timer = eventfd2(guest.thread, 26, EFD_SEMAPHORE), timerfd_create(guest.thread, CLOCK_MONOTONIC, 0)
    set_timer(guest, timer, 3 * S, 2 * S)
    signals, ep = open_signalfd(guest, 1, 3), epoll_create1(guest.thread, 0)
    guest.memory.write(A, struct.pack("<IQ", EPOLLIN, 0xAB))
    epoll_ctl(guest.thread, ep, EPOLL_CTL_ADD, counter, A)
    assert fds.get(counter).fdinfo().splitlines()[::2] == ["eventfd-count:               1a", "eventfd-semaphore: 1"]
    assert fds.get(timer).fdinfo().splitlines()[-2:] == ["it_value: (3, 0)", "it_interval: (2, 0)"]
    assert fds.get(signals).fdinfo() == "sigmask:\t0000000000000005\n"
    assert fds.get(ep).fdinfo().startswith(f"tfd: {counter:8} events:       19 data:               ab  pos:0 ino:")
