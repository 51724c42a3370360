"""What a program sees of pipes and FIFOs."""

from __future__ import annotations

import stat
import struct

import pytest
from guest_thread import A, Guest, awaited, make_guest, settle
from hypothesis import given
from hypothesis import strategies as st

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY
from asyncsentry.abi.ioctls_h import FIONREAD
from asyncsentry.errnos import Interrupted
from asyncsentry.fs.anon import ANON_INODE_FS, AnonInode
from asyncsentry.fs.fdtable import drop
from asyncsentry.fs.pipe import make_pipe, open_fifo
from asyncsentry.syscalls import readwrite
from asyncsentry.syscalls.pipes import pipe, pipe2
from asyncsentry.syscalls.readwrite import readv, writev
from asyncsentry.waiter import POLLERR, POLLHUP, READABLE, WRITABLE

read = awaited(readwrite.read)
write = awaited(readwrite.write)


@pytest.fixture
async def guest() -> Guest:
    return await make_guest()


async def open_pipe(guest: Guest, flags: int = 0) -> tuple[int, int]:
    await pipe2(guest.thread, A, flags)
    return struct.unpack("<ii", guest.memory.read(A, 8))


async def test_bytes_come_out_as_they_went_in(guest):
    r, w = await open_pipe(guest)
    guest.memory.write(A, b"hello world")
    assert await write(guest.thread, w, A, 11) == 11
    assert await read(guest.thread, r, A + 100, 5) == 5
    assert guest.memory.read(A + 100, 5) == b"hello"
    assert await read(guest.thread, r, A + 100, 100) == 6
    assert guest.memory.read(A + 100, 6) == b" world"


async def test_a_read_takes_what_several_writes_left(guest):
    r, w = await open_pipe(guest)
    for text in (b"ab", b"cde", b"f"):
        guest.memory.write(A, text)
        await write(guest.thread, w, A, len(text))
    assert await read(guest.thread, r, A, 4) == 4
    assert guest.memory.read(A, 4) == b"abcd"
    assert await read(guest.thread, r, A, 4) == 2
    assert guest.memory.read(A, 2) == b"ef"


async def test_a_reader_waits_for_a_writer(guest):
    r, w = await open_pipe(guest)
    other = guest.add_thread()
    reading = await guest.start(read(guest.thread, r, A, 10))
    assert not reading.done()
    other.memory.write(A + 100, b"x")
    assert await write(other.thread, w, A + 100, 1) == 1
    assert await reading == 1


async def test_an_empty_pipe_without_writers_is_at_its_end(guest):
    r, w = await open_pipe(guest)
    reading = await guest.start(read(guest.thread, r, A, 10))
    await guest.thread.fds.close(w)
    assert await reading == 0


async def test_nonblocking_ends_say_eagain(guest):
    r, w = await open_pipe(guest, O_NONBLOCK)
    with pytest.raises(errnos.EAGAIN):
        await read(guest.thread, r, A, 1)
    assert await write(guest.thread, w, A, 65536) == 65536
    with pytest.raises(errnos.EAGAIN):
        await write(guest.thread, w, A, 1)


async def test_small_writes_go_whole_or_not_at_all(guest):
    r, w = await open_pipe(guest, O_NONBLOCK)
    assert await write(guest.thread, w, A, 65536 - 100) == 65536 - 100
    with pytest.raises(errnos.EAGAIN):
        await write(guest.thread, w, A, 200)
    await read(guest.thread, r, A, 10000)
    assert await write(guest.thread, w, A, 20000) == 10100


async def test_a_long_write_goes_on_as_the_reader_drains(guest):
    r, w = await open_pipe(guest)
    other = guest.add_thread()
    guest.memory.write(A, bytes(range(256)) * 128)
    await write(guest.thread, w, A, 32768)
    await write(guest.thread, w, A, 32768)
    writing = await guest.start(write(guest.thread, w, A, 32768))
    assert not writing.done()
    for _ in range(3):
        assert await read(other.thread, r, A, 32768) == 32768
        await settle()
    assert await writing == 32768


async def test_writing_without_readers_raises_sigpipe(guest):
    r, w = await open_pipe(guest)
    await guest.thread.fds.close(r)
    with pytest.raises(errnos.EPIPE):
        await write(guest.thread, w, A, 1)
    assert guest.thread.pending.mask == 1 << 12
    assert await write(guest.thread, w, A, 0) == 0


async def test_a_reader_that_leaves_ends_a_half_done_write_with_its_count(guest):
    r, w = await open_pipe(guest)
    await write(guest.thread, w, A, 60000)
    writing = await guest.start(write(guest.thread, w, A, 20000))
    await guest.thread.fds.close(r)
    assert await writing == 5536
    assert guest.thread.pending.mask == 1 << 12


async def test_a_signal_ends_a_read_that_has_nothing_and_a_write_that_has_something(guest):
    r, w = await open_pipe(guest)
    reading = await guest.start(read(guest.thread, r, A, 10))
    guest.thread.interrupt()
    with pytest.raises(Interrupted):
        await reading
    await write(guest.thread, w, A, 60000)
    writing = await guest.start(write(guest.thread, w, A, 20000))
    guest.thread.interrupt()
    assert await writing == 5536


async def test_a_bad_buffer_loses_no_bytes(guest):
    r, w = await open_pipe(guest)
    guest.memory.write(A, b"precious")
    await write(guest.thread, w, A, 8)
    with pytest.raises(errnos.EFAULT):
        await read(guest.thread, r, 0x1000, 8)
    end = A + 0x10000
    assert await read(guest.thread, r, end - 3, 8) == 3
    assert await read(guest.thread, r, A, 8) == 5
    assert guest.memory.read(A, 5) == b"cious"
    assert await write(guest.thread, w, end - 3, 8) == 3
    with pytest.raises(errnos.EFAULT):
        await write(guest.thread, w, end, 8)


async def test_vectors_are_gathered_and_scattered(guest):
    r, w = await open_pipe(guest)
    guest.memory.write(A, b"onetwothree")
    guest.memory.write(A + 0x100, struct.pack("<QQQQQQ", A, 3, A + 3, 0, A + 6, 5))
    assert await writev(guest.thread, w, A + 0x100, 3) == 8
    guest.memory.write(A + 0x100, struct.pack("<QQQQ", A + 0x200, 2, A + 0x300, 100))
    assert await readv(guest.thread, r, A + 0x100, 2) == 8
    assert guest.memory.read(A + 0x200, 2) == b"on"
    assert guest.memory.read(A + 0x300, 6) == b"ethree"


async def test_packets_keep_their_borders(guest):
    r, w = await open_pipe(guest, O_DIRECT | O_NONBLOCK)
    guest.memory.write(A, b"abcdef")
    await write(guest.thread, w, A, 6)
    await write(guest.thread, w, A, 2)
    assert await read(guest.thread, r, A + 100, 3) == 3
    assert await read(guest.thread, r, A + 100, 10) == 2
    for _ in range(16):
        await write(guest.thread, w, A, 1)
    with pytest.raises(errnos.EAGAIN):
        await write(guest.thread, w, A, 1)


async def test_wrong_direction_is_ebadf_and_positions_are_espipe(guest):
    r, w = await open_pipe(guest)
    with pytest.raises(errnos.EBADF):
        await read(guest.thread, w, A, 1)
    with pytest.raises(errnos.EBADF):
        await write(guest.thread, r, A, 1)
    with pytest.raises(errnos.ESPIPE):
        guest.thread.fds.get(r).seek(0, 0)


async def test_no_descriptor_stays_behind_a_failed_pipe(guest):
    with pytest.raises(errnos.EFAULT):
        await pipe(guest.thread, 0x10)
    guest.thread.fds.limit = 1
    with pytest.raises(errnos.EMFILE):
        await pipe(guest.thread, A)
    assert not guest.thread.fds.files


async def test_poll_bits_follow_fill_and_ends():
    r, w = make_pipe(7)
    assert (r.poll(), w.poll()) == (0, WRITABLE)
    w.try_write(b"x" * 65536)
    assert (r.poll(), w.poll()) == (READABLE, 0)
    await r.release()
    assert w.poll() == POLLERR
    r, w = make_pipe(8)
    await w.release()
    assert r.poll() == POLLHUP


async def test_fionread_and_stat_and_size(guest):
    r, w = await open_pipe(guest)
    await write(guest.thread, w, A, 123)
    file = guest.thread.fds.get(r)
    assert file.ioctl(guest.thread, FIONREAD, A) == 0
    assert guest.memory.read_i32(A) == 123
    status = file.inode.stat()
    assert stat.S_ISFIFO(status.mode)
    assert file.describe() == f"pipe:[{status.ino}]"
    assert file.pipe.resize(100000, False) == 131072
    with pytest.raises(errnos.EPERM):
        file.pipe.resize(2 << 20, False)
    assert file.pipe.resize(1, True) == 4096
    await write(guest.thread, w, A, 3000)
    assert file.pipe.resize(5000, True) == 8192
    await write(guest.thread, w, A, 4000)
    with pytest.raises(errnos.EBUSY):
        file.pipe.resize(4096, True)


async def test_a_fifo_open_waits_for_the_other_side(guest):
    inode = AnonInode(ANON_INODE_FS, 9, stat.S_IFIFO | 0o600)
    other = guest.add_thread()
    opening = await guest.start(open_fifo(inode, O_RDONLY, None, guest.thread))
    assert not opening.done()
    writer = await open_fifo(inode, O_WRONLY, None, other.thread)
    reader = await opening
    writer.try_write(b"hi")
    assert reader.try_read(10) == b"hi"
    for file in (reader, writer):
        file.references = 1
        await drop(file)
    assert inode.pipe is None


async def test_a_fifo_open_for_writing_waits_even_if_the_reader_leaves_at_once(guest):
    inode = AnonInode(ANON_INODE_FS, 9, stat.S_IFIFO | 0o600)
    opening = await guest.start(open_fifo(inode, O_WRONLY, None, guest.thread))
    reader = await open_fifo(inode, O_RDONLY | O_NONBLOCK, None, guest.thread)
    await reader.release()
    with pytest.raises(errnos.EPIPE):
        (await opening).try_write(b"x")


async def test_fifo_opens_that_do_not_wait(guest):
    inode = AnonInode(ANON_INODE_FS, 9, stat.S_IFIFO | 0o600)
    with pytest.raises(errnos.ENXIO):
        await open_fifo(inode, O_WRONLY | O_NONBLOCK, None, guest.thread)
    assert inode.pipe is None
    reader = await open_fifo(inode, O_RDONLY | O_NONBLOCK, None, guest.thread)
    assert reader.try_read(1) == b""
    assert reader.poll() == 0
    writer = await open_fifo(inode, O_WRONLY | O_NONBLOCK, None, guest.thread)
    await writer.release()
    assert reader.poll() == POLLHUP
    both = await open_fifo(inode, O_RDWR, None, guest.thread)
    assert both.poll() == WRITABLE


async def test_an_interrupted_fifo_open_leaves_no_end_behind(guest):
    inode = AnonInode(ANON_INODE_FS, 9, stat.S_IFIFO | 0o600)
    opening = await guest.start(open_fifo(inode, O_RDONLY, None, guest.thread))
    guest.thread.interrupt()
    with pytest.raises(Interrupted):
        await opening
    assert inode.pipe is None


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=9000), st.integers(1, 9000)), max_size=60), st.booleans())
def test_the_stream_stays_in_order_and_within_its_capacity(steps, unread_some):
    r, w = make_pipe(1)
    expected, sent = b"", b""
    for step in steps:
        if isinstance(step, bytes):
            try:
                count = w.try_write(step)
            except errnos.WouldBlock:
                continue
            sent += step[:count]
        elif r.pipe.size:
            data = r.try_read(step)
            if unread_some:
                r.unread(data[len(data) // 2 :])
                data = data[: len(data) // 2]
            expected += data
        assert r.pipe.size == len(sent) - len(expected) <= r.pipe.capacity
    while r.pipe.size:
        expected += r.try_read(5000)
    assert expected == sent


async def test_one_byte_wakes_one_reader_and_the_rest_is_passed_on(guest):
    r, w = await open_pipe(guest)
    threads = [guest.add_thread() for _ in range(3)]
    reads = [await other.start(read(other.thread, r, A, 1)) for other in threads]
    await write(guest.thread, w, A, 2)
    await settle()
    assert [task.done() for task in reads] == [True, True, False]
    threads[2].thread.interrupt()
    await write(guest.thread, w, A, 1)  # comes too late for the interrupted one, and stays
    with pytest.raises(Interrupted):
        await reads[2]
    assert guest.thread.fds.get(r).pipe.size == 1


async def test_a_wake_up_skips_a_reader_a_signal_has_reached_first(guest):
    r, w = await open_pipe(guest)
    first, second = guest.add_thread(), guest.add_thread()
    reads = [await other.start(read(other.thread, r, A, 1)) for other in (first, second)]
    first.thread.interrupt()
    guest.thread.fds.get(w).try_write(b"x")
    assert await reads[1] == 1
    with pytest.raises(Interrupted):
        await reads[0]


async def test_the_end_wakes_all_readers(guest):
    r, w = await open_pipe(guest)
    threads = [guest.add_thread() for _ in range(3)]
    reads = [await other.start(read(other.thread, r, A, 1)) for other in threads]
    await guest.thread.fds.close(w)
    assert [await task for task in reads] == [0, 0, 0]


async def test_room_wakes_writers_one_after_the_other(guest):
    r, w = await open_pipe(guest)
    await write(guest.thread, w, A, 65536)
    threads = [guest.add_thread() for _ in range(3)]
    writes = [await other.start(write(other.thread, w, A, 1000)) for other in threads]
    await read(guest.thread, r, A, 8192)
    await settle()
    assert [task.done() for task in writes] == [True, True, True]
