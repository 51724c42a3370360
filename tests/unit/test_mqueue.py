"""POSIX message queues as programs see them, mq_overview(7)."""

from __future__ import annotations

import struct

import pytest
from guest_sockets import DATA, HEADER, NAME, SocketGuest, make_socket_guest
from guest_thread import settle

from asyncsentry import errnos
from asyncsentry.abi import mqueue_h as abi
from asyncsentry.abi.fcntl_h import O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY
from asyncsentry.abi.resource_h import RLIMIT_MSGQUEUE
from asyncsentry.abi.signal_h import SIGEV_SIGNAL, SIGEVENT
from asyncsentry.clock import CLOCK_REALTIME
from asyncsentry.syscalls import mqueue
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.waiter import POLLIN, POLLOUT

SIGUSR1 = 10


@pytest.fixture
async def g() -> SocketGuest:
    return await make_socket_guest()


async def open_queue(g: SocketGuest, flags: int = O_RDWR | O_CREAT, size: tuple[int, int] | None = (2, 16),
                     name: bytes = b"q") -> int:
    attributes = g.put(HEADER, abi.MQ_ATTR.pack(0, *size, 0)) if size else 0
    return await mqueue.mq_open(g.thread, g.put(NAME, name + b"\0"), flags, 0o600, attributes)


async def send(g: SocketGuest, fd: int, text: bytes, priority: int = 0, until: int = 0) -> int:
    return await mqueue.mq_timedsend(g.thread, fd, g.put(DATA, text), len(text), priority, until)


async def receive(g: SocketGuest, fd: int, until: int = 0) -> tuple[bytes, int]:
    length = await mqueue.mq_timedreceive(g.thread, fd, g.at(DATA), 16, g.at(HEADER), until)
    return g.memory.read(g.at(DATA), length), g.memory.read_u32(g.at(HEADER))


async def test_messages_come_by_priority_then_by_age(g):
    fd = await open_queue(g, size=(4, 16))
    for text, priority in ((b"low", 1), (b"high", 9), (b"later", 1)):
        await send(g, fd, text, priority)
    assert [await receive(g, fd) for _ in range(3)] == [(b"high", 9), (b"low", 1), (b"later", 1)]


async def test_waiting_on_both_sides(g):
    fd = await open_queue(g)
    other = g.second_thread()
    receiving = await g.guest.start(receive(g, fd))
    await send(other, fd, b"x")
    await settle()
    assert await receiving == (b"x", 0)
    for _ in range(2):
        await send(g, fd, b"y")
    assert g.thread.fds.get(fd).poll() & (POLLIN | POLLOUT) == POLLIN
    sending = await g.guest.start(send(g, fd, b"z"))
    assert not sending.done()
    await receive(other, fd)
    await settle()
    assert await sending == 0


async def test_timeouts_are_moments_of_the_wall_clock(g):
    fd = await open_queue(g)
    moment = g.thread.kernel.clock.now_ns(CLOCK_REALTIME) + 5000
    timeout = g.put(HEADER + 0x40, struct.pack("<qq", *divmod(moment, 1_000_000_000)))
    receiving = await g.guest.start(receive(g, fd, timeout))
    g.guest.clock.advance(4999)
    await settle()
    assert not receiving.done()
    g.guest.clock.advance(1)
    await settle()
    with pytest.raises(errnos.ETIMEDOUT):
        await receiving


async def test_calls_that_cannot_be(g):
    fd = await open_queue(g)
    for call, error in ((open_queue(g, O_RDWR | O_CREAT | O_EXCL), errnos.EEXIST),
                        (open_queue(g, O_RDWR, None, b"none"), errnos.ENOENT),
                        (open_queue(g, name=b"a/b"), errnos.EACCES),
                        (open_queue(g, size=(0, 1), name=b"new"), errnos.EINVAL),
                        (send(g, fd, bytes(17)), errnos.EMSGSIZE), (send(g, fd, b"", 32768), errnos.EINVAL)):
        with pytest.raises(error):
            await call
    for flags, call in ((O_RDONLY, send), (O_WRONLY, receive)):
        other = await open_queue(g, flags)
        with pytest.raises(errnos.EBADF):
            await (call(g, other, b"x") if call is send else call(g, other))
    nonblocking = await open_queue(g, O_RDWR | O_NONBLOCK)
    with pytest.raises(errnos.EAGAIN):
        await receive(g, nonblocking)


async def test_a_queue_lives_until_its_last_descriptor_goes(g):
    fd = await open_queue(g)
    await mqueue.mq_unlink(g.thread, g.put(NAME, b"q\0"))
    with pytest.raises(errnos.ENOENT):
        await mqueue.mq_unlink(g.thread, g.put(NAME, b"q\0"))
    await send(g, fd, b"still")
    assert await receive(g, fd) == (b"still", 0)
    assert g.thread.kernel.mqueues.charged[0]
    await g.close(fd)
    assert not g.thread.kernel.mqueues.charged[0]


async def test_limits_and_permissions(g):
    user = g.second_process(Credentials.for_user(1000, 1000))
    await open_queue(g)
    with pytest.raises(errnos.EACCES):
        await open_queue(user)
    with pytest.raises(errnos.EINVAL):
        await open_queue(user, size=(11, 16), name=b"many")
    g.thread.process.limits.set(RLIMIT_MSGQUEUE, 1000, 1000)
    with pytest.raises(errnos.EMFILE):
        await open_queue(g, name=b"big", size=(10, 100))


async def test_one_process_is_told_once_that_a_queue_is_no_longer_empty(g):
    fd = await open_queue(g)
    event = g.put(HEADER, SIGEVENT.pack(7, SIGUSR1, SIGEV_SIGNAL, 0))
    mqueue.mq_notify(g.thread, fd, event)
    with pytest.raises(errnos.EBUSY):
        mqueue.mq_notify(g.thread, fd, event)
    g.thread.signal_mask = 1 << (SIGUSR1 - 1)
    await send(g, fd, b"x")
    mqueue.mq_notify(g.thread, fd, event)
    assert len(list(g.thread.kernel.mqueues.directory.queues)) == 1
    mqueue.mq_notify(g.thread, fd, 0)
    assert g.thread.kernel.mqueues.directory.queues["q"].subscriber is None
