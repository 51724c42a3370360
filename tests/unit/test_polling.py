"""What a program sees of poll(2), select(2) and their variants."""

from __future__ import annotations

import struct

import pytest
from guest_thread import A, Guest, awaited, make_guest, settle

from asyncsentry import errnos
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import Interrupted
from asyncsentry.fs.pipe import make_pipe
from asyncsentry.syscalls import polling
from asyncsentry.syscalls.polling import ppoll, pselect6, select
from asyncsentry.waiter import POLLHUP, POLLIN, POLLNVAL, POLLOUT

MS = 1_000_000

poll = awaited(polling.poll)


@pytest.fixture
async def guest() -> Guest:
    return await make_guest()


def install_pipe(guest: Guest) -> tuple[int, int]:
    r, w = make_pipe(1)
    return guest.thread.fds.install(r), guest.thread.fds.install(w)


def write_pollfds(guest: Guest, *rows: tuple[int, int]) -> None:
    guest.memory.write(A, b"".join(struct.pack("<ihh", fd, events, 0x55) for fd, events in rows))


def revents(guest: Guest, count: int) -> list[int]:
    return [row[2] for row in struct.iter_unpack("<ihh", guest.memory.read(A, 8 * count))]


async def test_poll_tells_at_once_what_is_ready(guest):
    r, w = install_pipe(guest)
    write_pollfds(guest, (r, POLLIN), (w, POLLOUT), (-1, POLLIN), (99, POLLIN))
    assert await poll(guest.thread, A, 4, -1) == 2
    assert revents(guest, 4) == [0, POLLOUT, 0, POLLNVAL]


async def test_poll_wakes_when_data_or_the_end_comes(guest):
    r, w = install_pipe(guest)
    write_pollfds(guest, (r, POLLIN))
    polling = await guest.start(poll(guest.thread, A, 1, -1))
    assert not polling.done()
    guest.thread.fds.get(w).try_write(b"x")
    assert await polling == 1
    guest.thread.fds.get(r).try_read(1)
    polling = await guest.start(poll(guest.thread, A, 1, -1))
    await guest.thread.fds.close(w)
    assert await polling == 1
    assert revents(guest, 1) == [POLLHUP]


async def test_poll_times_out(guest):
    r, _ = install_pipe(guest)
    write_pollfds(guest, (r, POLLIN))
    assert await poll(guest.thread, A, 1, 0) == 0
    polling = await guest.start(poll(guest.thread, A, 1, 100))
    guest.clock.advance(99 * MS)
    await settle()
    assert not polling.done()
    guest.clock.advance(1 * MS)
    assert await polling == 0
    assert revents(guest, 1) == [0]


async def test_an_interrupted_poll_restarts_with_its_first_deadline(guest):
    polling = await guest.start(poll(guest.thread, 0, 0, 100))
    guest.clock.advance(60 * MS)
    guest.thread.interrupt()
    with pytest.raises(Interrupted):
        await polling
    again = await guest.start(guest.thread.restart())
    guest.clock.advance(40 * MS)
    assert await again == 0


async def test_poll_checks_its_count_and_memory(guest):
    with pytest.raises(errnos.EINVAL):
        await poll(guest.thread, A, 1 << 31, 0)
    with pytest.raises(errnos.EFAULT):
        await poll(guest.thread, 0x10, 1, 0)


async def test_ppoll_writes_back_the_time_left_and_swaps_the_mask(guest):
    guest.thread.signal_mask = 0b1
    guest.memory.write(A, struct.pack("<qqQ", 2, 0, 0b10))
    polling = await guest.start(ppoll(guest.thread, 0, 0, A, A + 16, 8))
    assert guest.thread.signal_mask == 0b10
    guest.clock.advance(NS_PER_SECOND // 2)
    guest.thread.interrupt()
    with pytest.raises(Interrupted):
        await polling
    assert struct.unpack("<qq", guest.memory.read(A, 16)) == (1, NS_PER_SECOND // 2)
    assert guest.thread.saved_signal_mask == 0b1
    guest.thread.restore_signal_mask()
    guest.memory.write(A, struct.pack("<qq", 0, 1))
    polling = await guest.start(ppoll(guest.thread, 0, 0, A, A + 16, 8))
    guest.clock.advance(1)
    assert await polling == 0
    assert guest.thread.signal_mask == 0b1


async def test_ppoll_checks_its_arguments(guest):
    guest.memory.write(A, struct.pack("<qq", 0, NS_PER_SECOND))
    with pytest.raises(errnos.EINVAL):
        await ppoll(guest.thread, 0, 0, A, 0, 0)
    with pytest.raises(errnos.EINVAL):
        await ppoll(guest.thread, 0, 0, 0, A, 4)


async def test_select_reports_in_its_sets_and_counts_bits(guest):
    r, w = install_pipe(guest)
    guest.thread.fds.get(w).try_write(b"x")
    both = 1 << r | 1 << w
    guest.memory.write(A, both.to_bytes(8, "little") + both.to_bytes(8, "little") + both.to_bytes(8, "little"))
    assert await select(guest.thread, 2, A, A + 8, A + 16, 0) == 2
    assert struct.unpack("<QQQ", guest.memory.read(A, 24)) == (1 << r, 1 << w, 0)


async def test_select_counts_a_hang_up_as_readable_and_no_reader_as_writable(guest):
    r, w = install_pipe(guest)
    await guest.thread.fds.close(w)
    guest.memory.write(A, (1 << r).to_bytes(8, "little"))
    assert await select(guest.thread, r + 1, A, 0, 0, 0) == 1


async def test_select_waits_and_updates_its_timeval(guest):
    r, w = install_pipe(guest)
    guest.memory.write(A, struct.pack("<Qqq", 1 << r, 3, 0))
    selecting = await guest.start(select(guest.thread, 1024, A, 0, 0, A + 8))
    guest.clock.advance(NS_PER_SECOND)
    guest.thread.fds.get(w).try_write(b"x")
    assert await selecting == 1
    assert struct.unpack("<qq", guest.memory.read(A + 8, 16)) == (2, 0)


async def test_select_refuses_closed_descriptors_and_bad_arguments(guest):
    guest.memory.write(A, (1 << 9).to_bytes(8, "little"))
    with pytest.raises(errnos.EBADF):
        await select(guest.thread, 10, A, 0, 0, 0)
    with pytest.raises(errnos.EINVAL):
        await select(guest.thread, -1, 0, 0, 0, 0)
    guest.memory.write(A, struct.pack("<qq", -1, 0))
    with pytest.raises(errnos.EINVAL):
        await select(guest.thread, 0, 0, 0, 0, A)


async def test_pselect_has_its_mask_only_while_it_waits(guest):
    guest.memory.write(A, struct.pack("<qqQQQ", 1, 0, A + 32, 8, 0b100))
    selecting = await guest.start(pselect6(guest.thread, 0, 0, 0, 0, A, A + 16))
    assert guest.thread.signal_mask == 0b100
    guest.clock.advance(NS_PER_SECOND)
    assert await selecting == 0
    assert guest.thread.signal_mask == 0
    assert struct.unpack("<qq", guest.memory.read(A, 16)) == (0, 0)


async def test_pselect_with_no_time_still_notices_a_signal_it_unblocks(guest):
    guest.thread.signal_mask = 1 << 9
    guest.thread.raise_signal(10)
    guest.memory.write(A, struct.pack("<qqQQQ", 0, 0, A + 32, 8, 0))
    with pytest.raises(Interrupted):
        await pselect6(guest.thread, 0, 0, 0, 0, A, A + 16)
