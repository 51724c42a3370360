"""What a program sees of epoll(7)."""

from __future__ import annotations

import itertools
import stat
import struct

import pytest
from guest_thread import A, Guest, awaited, make_guest

from asyncsentry import errnos
from asyncsentry.abi.epoll_h import (
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLIN,
    EPOLLONESHOT,
    EPOLLOUT,
)
from asyncsentry.errnos import Interrupted
from asyncsentry.fs.anon import ANON_INODE_FS, AnonInode
from asyncsentry.fs.file import File
from asyncsentry.fs.pipe import PipeFile, make_pipe
from asyncsentry.syscalls import epolls
from asyncsentry.syscalls.epolls import epoll_create, epoll_create1, epoll_ctl, epoll_pwait, epoll_pwait2

epoll_wait = awaited(epolls.epoll_wait)


@pytest.fixture
async def guest() -> Guest:
    return await make_guest()


def install_pipe(guest: Guest) -> tuple[int, PipeFile]:
    r, w = make_pipe(1)
    guest.thread.fds.install(w)
    return guest.thread.fds.install(r), w


def control(guest: Guest, epfd: int, operation: int, fd: int, events: int = 0, data: int = 0) -> None:
    guest.memory.write(A, struct.pack("<IQ", events, data))
    assert epoll_ctl(guest.thread, epfd, operation, fd, A) == 0


async def wait(guest: Guest, epfd: int, timeout_ms: int = 0, limit: int = 8) -> list[tuple[int, int]]:
    count = await epoll_wait(guest.thread, epfd, A + 256, limit, timeout_ms)
    return list(struct.iter_unpack("<IQ", guest.memory.read(A + 256, 12 * count)))


async def test_level_triggered_events_come_until_they_are_handled(guest):
    ep = epoll_create1(guest.thread, 0)
    r, w = install_pipe(guest)
    control(guest, ep, EPOLL_CTL_ADD, r, EPOLLIN, 0xDEADBEEFCAFE)
    assert await wait(guest, ep) == []
    w.try_write(b"x")
    for _ in range(2):
        assert await wait(guest, ep) == [(EPOLLIN, 0xDEADBEEFCAFE)]
    guest.thread.fds.get(r).try_read(1)
    assert await wait(guest, ep) == []


async def test_edge_triggered_events_come_once_per_change(guest):
    ep = epoll_create1(guest.thread, 0)
    r, w = install_pipe(guest)
    control(guest, ep, EPOLL_CTL_ADD, r, EPOLLIN | EPOLLET)
    w.try_write(b"x")
    assert len(await wait(guest, ep)) == 1
    assert await wait(guest, ep) == []
    w.try_write(b"y")
    assert len(await wait(guest, ep)) == 1
    control(guest, ep, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLET)
    assert len(await wait(guest, ep)) == 1


async def test_oneshot_is_off_until_it_is_modified(guest):
    ep = epoll_create1(guest.thread, 0)
    r, w = install_pipe(guest)
    control(guest, ep, EPOLL_CTL_ADD, r, EPOLLIN | EPOLLONESHOT)
    w.try_write(b"x")
    assert len(await wait(guest, ep)) == 1
    w.try_write(b"y")
    assert await wait(guest, ep) == []
    control(guest, ep, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLONESHOT, 7)
    assert await wait(guest, ep) == [(EPOLLIN, 7)]


async def test_a_waiter_wakes_and_a_hang_up_needs_no_asking(guest):
    ep = epoll_create1(guest.thread, 0)
    r, w = install_pipe(guest)
    control(guest, ep, EPOLL_CTL_ADD, r, 0)
    waiting = await guest.start(wait(guest, ep, -1))
    assert not waiting.done()
    await w.release()
    # Linux: an item that asks for nothing at all still hears of errors and hang-ups.
    assert await waiting == [(EPOLLHUP, 0)]


async def test_waits_end_at_their_time_or_by_a_signal(guest):
    ep = epoll_create(guest.thread, 1)
    waiting = await guest.start(wait(guest, ep, 5))
    guest.clock.advance(5_000_000)
    assert await waiting == []
    waiting = await guest.start(wait(guest, ep, -1))
    guest.thread.interrupt()
    with pytest.raises(Interrupted):
        await waiting
    guest.memory.write(A, struct.pack("<qqQ", 0, 1500, 0b100))
    waiting = await guest.start(epoll_pwait2(guest.thread, ep, A + 256, 8, A, A + 16, 8))
    assert guest.thread.signal_mask == 0b100
    guest.clock.advance(1500)
    assert await waiting == 0
    assert guest.thread.signal_mask == 0
    assert await epoll_pwait(guest.thread, ep, A + 256, 8, 0, A + 16, 8) == 0


async def test_a_closed_file_leaves_the_set_but_a_duplicate_keeps_it(guest):
    fds = guest.thread.fds
    ep = epoll_create1(guest.thread, 0)
    r, w = install_pipe(guest)
    control(guest, ep, EPOLL_CTL_ADD, r, EPOLLIN, 1)
    copy = fds.install(fds.get(r))
    w.try_write(b"x")
    await fds.close(r)
    assert await wait(guest, ep) == [(EPOLLIN, 1)]
    await fds.close(copy)
    assert await wait(guest, ep) == []
    assert not fds.get(ep).items


async def test_a_closed_epoll_instance_lets_its_files_go(guest):
    ep = epoll_create1(guest.thread, 0)
    r, _ = install_pipe(guest)
    control(guest, ep, EPOLL_CTL_ADD, r, EPOLLIN)
    await guest.thread.fds.close(ep)
    file = guest.thread.fds.get(r)
    assert not file.registrations
    assert not file.queue


async def test_events_rotate_when_there_is_room_for_few(guest):
    ep = epoll_create1(guest.thread, 0)
    for data in range(3):
        r, w = install_pipe(guest)
        w.try_write(b"x")
        control(guest, ep, EPOLL_CTL_ADD, r, EPOLLIN, data)
    seen = [(await wait(guest, ep, limit=1))[0][1] for _ in range(6)]
    assert seen == [0, 1, 2, 0, 1, 2]


async def test_control_errors(guest):
    ep = epoll_create1(guest.thread, 0)
    r, _ = install_pipe(guest)
    thread = guest.thread
    regular = thread.fds.install(File(AnonInode(ANON_INODE_FS, 5, stat.S_IFREG), 0))
    control(guest, ep, EPOLL_CTL_ADD, r, EPOLLIN)
    for operation, epfd, fd, address, error in (
        (EPOLL_CTL_ADD, ep, r, A, errnos.EEXIST), (EPOLL_CTL_ADD, ep, 77, A, errnos.EBADF),
        (EPOLL_CTL_ADD, 77, r, A, errnos.EBADF), (EPOLL_CTL_ADD, r, ep, A, errnos.EINVAL),
        (EPOLL_CTL_ADD, ep, ep, A, errnos.EINVAL), (EPOLL_CTL_ADD, ep, regular, A, errnos.EPERM),
        (EPOLL_CTL_ADD, ep, r, 0x10, errnos.EFAULT), (9, ep, r, A, errnos.EINVAL),
    ):  # fmt: skip
        with pytest.raises(error):
            epoll_ctl(thread, epfd, operation, fd, address)
    control(guest, ep, EPOLL_CTL_DEL, r)
    for operation in (EPOLL_CTL_DEL, EPOLL_CTL_MOD):
        with pytest.raises(errnos.ENOENT):
            epoll_ctl(thread, ep, operation, r, A)
    with pytest.raises(errnos.EINVAL):
        await epoll_wait(thread, ep, A, 0, 0)
    with pytest.raises(errnos.EINVAL):
        await epoll_wait(thread, r, A, 1, 0)
    with pytest.raises(errnos.EINVAL):
        epoll_create(thread, 0)


async def test_instances_nest_but_not_in_circles_nor_deep(guest):
    chain = [epoll_create1(guest.thread, 0) for _ in range(6)]
    r, w = install_pipe(guest)
    control(guest, chain[0], EPOLL_CTL_ADD, r, EPOLLIN)
    for inner, outer in itertools.pairwise(chain[:5]):
        control(guest, outer, EPOLL_CTL_ADD, inner, EPOLLIN)
    with pytest.raises(errnos.ELOOP):
        control(guest, chain[5], EPOLL_CTL_ADD, chain[4], EPOLLIN)
    with pytest.raises(errnos.ELOOP):
        control(guest, chain[0], EPOLL_CTL_ADD, chain[3], EPOLLIN)
    waiting = await guest.start(wait(guest, chain[4], -1))
    w.try_write(b"x")
    assert len(await waiting) == 1


async def test_exclusive_items_wake_one_instance_that_has_sleepers(guest):
    other = guest.add_thread()
    first, second = epoll_create1(guest.thread, 0), epoll_create1(guest.thread, 0)
    r, w = install_pipe(guest)
    for ep in (first, second):
        control(guest, ep, EPOLL_CTL_ADD, r, EPOLLIN | EPOLLEXCLUSIVE)
    sleeping = await guest.start(wait(guest, second, -1))
    w.try_write(b"x")
    assert len(await sleeping) == 1
    guest.thread.fds.get(r).try_read(1)
    sleeping, also = await guest.start(wait(guest, first, -1)), await other.start(wait(other, second, -1))
    w.try_write(b"x")
    assert len(await sleeping) == 1
    assert not also.done()
    other.thread.interrupt()
    with pytest.raises(Interrupted):
        await also
    with pytest.raises(errnos.EINVAL):
        control(guest, first, EPOLL_CTL_MOD, r, EPOLLIN)
    with pytest.raises(errnos.EINVAL):
        control(guest, first, EPOLL_CTL_ADD, second, EPOLLIN | EPOLLEXCLUSIVE)


async def test_events_that_cannot_be_copied_stay(guest):
    ep = epoll_create1(guest.thread, 0)
    r, w = install_pipe(guest)
    control(guest, ep, EPOLL_CTL_ADD, r, EPOLLIN | EPOLLET)
    w.try_write(b"x")
    with pytest.raises(errnos.EFAULT):
        await epoll_wait(guest.thread, ep, 0x10, 8, 0)
    assert len(await wait(guest, ep)) == 1


async def test_the_write_end_is_reported_writable(guest):
    ep = epoll_create1(guest.thread, 0)
    r, w = make_pipe(3)
    guest.thread.fds.install(r)
    fd = guest.thread.fds.install(w)
    control(guest, ep, EPOLL_CTL_ADD, fd, EPOLLOUT | EPOLLET)
    assert await wait(guest, ep) == [(EPOLLOUT, 0)]
    w.try_write(bytes(65536))
    assert await wait(guest, ep) == []
    r.try_read(5000)
    assert await wait(guest, ep) == [(EPOLLOUT, 0)]
