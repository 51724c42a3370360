"""What the socket calls themselves check and copy, whatever the family."""

from __future__ import annotations

import struct

import pytest
from guest_sockets import (
    CONTROL,
    DATA,
    HEADER,
    LENGTH,
    NAME,
    UNIX,
    VECTOR,
    SocketGuest,
    finish,
    make_socket_guest,
    unix,
)
from guest_thread import A, settle
from hypothesis import given
from hypothesis import strategies as st

from asyncsentry import errnos
from asyncsentry.abi import socket_h as s
from asyncsentry.errnos import Interrupted
from asyncsentry.fs.file import File
from asyncsentry.net.ancillary import split_control
from asyncsentry.syscalls import socket_receive, socket_send, sockets
from asyncsentry.tasks.credentials import Credentials

STREAM, DGRAM = s.SOCK_STREAM, s.SOCK_DGRAM
BAD = A - 0x1000
"""An address nothing is mapped at."""


@pytest.fixture
async def g() -> SocketGuest:
    return await make_socket_guest()


@pytest.mark.parametrize(("domain", "kind", "protocol", "error"), [
    (99, STREAM, 0, errnos.EAFNOSUPPORT), (-1, STREAM, 0, errnos.EAFNOSUPPORT), (1, 0, 0, errnos.ESOCKTNOSUPPORT),
    (1, 15, 0, errnos.EINVAL), (1, STREAM | 0x100, 0, errnos.EINVAL), (1, STREAM, 6, errnos.EPROTONOSUPPORT),
    (1, s.SOCK_RDM, 0, errnos.ESOCKTNOSUPPORT),
])  # fmt: skip
async def test_sockets_that_cannot_be_made(g, domain, kind, protocol, error):
    with pytest.raises(error):
        await g.socket(kind, domain, protocol)
    assert not g.thread.fds.files


async def test_flags_of_a_new_socket(g):
    fd = await g.socket(STREAM | s.SOCK_NONBLOCK | s.SOCK_CLOEXEC)
    assert g.file(fd).flags == 0o4002
    assert fd in g.thread.fds.close_on_exec
    stat = g.file(fd).inode.stat()
    assert stat.mode == 0o140777
    assert g.file(fd).describe() == f"socket:[{stat.ino}]"


async def test_a_pair_that_cannot_be_told_is_not_made(g):
    with pytest.raises(errnos.EFAULT):
        await sockets.socketpair(g.thread, s.AF_UNIX, STREAM, 0, BAD)
    g.thread.fds.limit = 1
    with pytest.raises(errnos.EMFILE):
        await g.pair()
    assert not g.thread.fds.files
    assert not g.thread.kernel.unix.sockets


async def test_things_that_are_no_sockets(g):
    fd = g.thread.fds.install(File(None, 0))
    with pytest.raises(errnos.ENOTSOCK):
        g.listen(fd)
    with pytest.raises(errnos.EBADF):
        g.listen(fd + 1)


async def test_accept_checks_for_a_free_descriptor_before_it_waits(g):
    listening = await g.listener(unix("@s"))
    g.thread.fds.limit = 1
    with pytest.raises(errnos.EMFILE):
        await g.accept(listening)
    with pytest.raises(errnos.EINVAL):
        await g.accept(listening, 1)


async def test_names_are_cut_to_the_room_there_is(g):
    fd = await g.socket()
    await g.bind(fd, unix("@a-long-name"))
    g.put(LENGTH, struct.pack("<i", 4))
    g.put(NAME, b"........")
    sockets.getsockname(g.thread, fd, g.at(NAME), g.at(LENGTH))
    assert g.memory.read(g.at(NAME), 6) == UNIX + b"\0a" + b".."
    assert g.memory.read_i32(g.at(LENGTH)) == len(unix("@a-long-name"))
    g.put(LENGTH, struct.pack("<i", -1))
    with pytest.raises(errnos.EINVAL):
        sockets.getsockname(g.thread, fd, g.at(NAME), g.at(LENGTH))


async def test_addresses_of_impossible_length(g):
    fd = await g.socket()
    for length in (-1, 129):
        with pytest.raises(errnos.EINVAL):
            await sockets.bind(g.thread, fd, g.at(NAME), length)
    with pytest.raises(errnos.EFAULT):
        await sockets.bind(g.thread, fd, BAD, 10)


async def test_options_that_every_socket_has(g):
    fd = await g.socket()
    assert g.get_int(fd, s.SO_SNDBUF) == 212992
    g.set(fd, s.SO_SNDBUF, 10_000)
    assert g.get_int(fd, s.SO_SNDBUF) == 20_000
    g.set(fd, s.SO_RCVBUF, 1)
    assert g.get_int(fd, s.SO_RCVBUF) == 2304
    g.set(fd, s.SO_SNDBUF, 1 << 30)
    assert g.get_int(fd, s.SO_SNDBUF) == 2 * 212992
    g.set(fd, s.SO_SNDBUFFORCE, 1 << 20)
    assert g.get_int(fd, s.SO_SNDBUF) == 2 << 20
    g.set(fd, s.SO_REUSEADDR, 5)
    assert g.get_int(fd, s.SO_REUSEADDR) == 1
    g.set(fd, s.SO_LINGER, s.LINGER.pack(1, 9))
    assert g.get(fd, s.SO_LINGER, room=8) == s.LINGER.pack(1, 9)
    assert g.get(fd, s.SO_TYPE, room=2) == b"\1\0"
    assert (g.get_int(fd, s.SO_DOMAIN), g.get_int(fd, s.SO_PROTOCOL), g.get_int(fd, s.SO_ERROR)) == (1, 0, 0)
    with pytest.raises(errnos.EDOM):
        g.set(fd, s.SO_RCVTIMEO, s.TIMEVAL.pack(0, 1_000_000))
    with pytest.raises(errnos.EINVAL):
        g.set(fd, s.SO_SNDBUF, b"\1")
    with pytest.raises(errnos.ENOPROTOOPT):
        g.set(fd, 1000, 1)
    with pytest.raises(errnos.EOPNOTSUPP):
        g.set(fd, 1, 1, level=6)


async def test_forcing_a_buffer_needs_a_capability(g):
    user = g.second_process(Credentials.for_user(1000, 1000))
    fd = await user.socket()
    with pytest.raises(errnos.EPERM):
        user.set(fd, s.SO_SNDBUFFORCE, 1 << 20)


async def test_a_vector_is_gathered_and_scattered(g):
    a, b = await g.pair(DGRAM)
    g.put(DATA, b"onetwothree")
    pieces = [(g.at(DATA), 3), (g.at(DATA) + 3, 3), (g.at(DATA) + 6, 5)]
    g.put(VECTOR, b"".join(struct.pack("<QQ", *piece) for piece in pieces))
    g.put(HEADER, s.MSGHDR.pack(0, 0, g.at(VECTOR), 3, 0, 0, 0))
    assert await socket_send.sendmsg(g.thread, a, g.at(HEADER), 0) == 11
    g.put(DATA, bytes(0x40))
    spread = [(g.at(DATA), 4), (g.at(DATA) + 0x10, 100)]
    g.put(VECTOR, b"".join(struct.pack("<QQ", *piece) for piece in spread))
    g.put(HEADER, s.MSGHDR.pack(0, 0, g.at(VECTOR), 2, 0, 0, 0))
    assert await socket_receive.recvmsg(g.thread, b, g.at(HEADER), 0) == 11
    assert g.memory.read(g.at(DATA), 5) == b"onet\0"
    assert g.memory.read(g.at(DATA) + 0x10, 7) == b"wothree"


@pytest.mark.parametrize(("header", "error"), [
    ((0, 0, VECTOR, 1025, 0, 0, 0), errnos.EMSGSIZE), ((NAME, 1 << 31, VECTOR, 0, 0, 0, 0), errnos.EINVAL),
    ((0, 0, VECTOR, 0, CONTROL, 1 << 31, 0), errnos.ENOBUFS), ((0, 0, VECTOR, 0, CONTROL, 1 << 20, 0), errnos.ENOBUFS),
    ((0, 0, VECTOR, 0, BAD, 16, 0), errnos.EFAULT), ((0, 0, BAD, 1, 0, 0, 0), errnos.EFAULT),
])  # fmt: skip
async def test_headers_that_are_wrong(g, header, error):
    a, _ = await g.pair(DGRAM)
    g.put(HEADER, s.MSGHDR.pack(*header))
    with pytest.raises(error):
        await socket_send.sendmsg(g.thread, a, g.at(HEADER), 0)


async def test_memory_that_cannot_be_read_or_written(g):
    a, b = await g.pair()
    with pytest.raises(errnos.EFAULT):
        await finish(socket_send.sendto(g.thread, a, BAD, 5, 0, 0, 0))
    await g.send(a, b"kept")
    with pytest.raises(errnos.EFAULT):
        await finish(socket_receive.recvfrom(g.thread, b, BAD, 5, 0, 0, 0))
    assert await g.recv(b) == b"kept"


async def write_headers(g: SocketGuest, count: int, size: int) -> None:
    for index in range(count):
        g.put(VECTOR + index * 16, struct.pack("<QQ", g.at(DATA) + index * 0x100, size))
        g.put(HEADER - 0x200 + index * 64 + 0x1000, s.MSGHDR.pack(0, 0, g.at(VECTOR) + index * 16, 1, 0, 0, 0))


async def test_many_messages_in_one_call(g):
    a, b = await g.pair(DGRAM)
    await write_headers(g, 3, 5)
    g.put(DATA, b"first".ljust(0x100) + b"secon".ljust(0x100) + b"third")
    headers = g.at(HEADER - 0x200 + 0x1000)
    assert await socket_send.sendmmsg(g.thread, a, headers, 3, 0) == 3
    assert g.memory.read_u32(headers + 56 + 64) == 5
    await write_headers(g, 4, 0x100)
    assert await socket_receive.recvmmsg(g.thread, b, headers, 4, s.MSG_WAITFORONE, 0) == 3
    assert g.memory.read(g.at(DATA) + 0x200, 5) == b"third"
    assert g.memory.read_u32(headers + 56 + 128) == 5
    with pytest.raises(errnos.EAGAIN):
        await socket_receive.recvmmsg(g.thread, b, headers, 1, s.MSG_DONTWAIT, 0)


async def test_an_error_after_the_first_message_only_ends_the_call(g):
    a, _ = await g.pair(DGRAM)
    await write_headers(g, 2, 5)
    headers = g.at(HEADER - 0x200 + 0x1000)
    g.memory.write(g.at(VECTOR) + 16, struct.pack("<QQ", BAD, 5))
    assert await socket_send.sendmmsg(g.thread, a, headers, 2, 0) == 1


async def test_receiving_many_stops_at_the_timeout(g):
    a, b = await g.pair(DGRAM)
    await write_headers(g, 2, 0x100)
    headers = g.at(HEADER - 0x200 + 0x1000)
    timeout = g.put(LENGTH, s.TIMEVAL.pack(0, 5000))
    receiving = await g.guest.start(socket_receive.recvmmsg(g.thread, b, headers, 2, 0, timeout))
    g.guest.clock.advance(6000)
    await g.second_thread().send(a, b"x")
    await settle()
    assert await receiving == 1
    g.put(LENGTH, s.TIMEVAL.pack(0, 1_000_000_000))
    with pytest.raises(errnos.EINVAL):
        await socket_receive.recvmmsg(g.thread, b, headers, 2, 0, timeout)


async def test_a_signal_during_a_connect(g):
    await g.listener(unix("@s"), backlog=0)
    await g.connect(await g.socket(), unix("@s"))
    fd = await g.socket()
    connecting = await g.guest.start(g.connect(fd, unix("@s")))
    g.thread.interrupt()
    await settle()
    with pytest.raises(Interrupted):
        await connecting
    g.set(fd, s.SO_SNDTIMEO, s.TIMEVAL.pack(1, 0))
    connecting = await g.guest.start(g.connect(fd, unix("@s")))
    g.guest.clock.advance(1_000_000_000)
    await settle()
    with pytest.raises(errnos.EAGAIN):
        await connecting
    assert g.file(fd).references == 1


async def test_closing_a_socket_another_thread_waits_on_does_not_end_the_wait(g):
    a, b = await g.pair()
    receiving = await g.guest.start(g.recv(b))
    other = g.second_thread()
    await other.close(b)
    await settle()
    assert not receiving.done()
    await other.send(a, b"still here")
    await settle()
    assert await receiving == b"still here"
    with pytest.raises(errnos.EPIPE):
        await g.send(a, b"x", s.MSG_NOSIGNAL)


@given(st.binary(max_size=200))
def test_control_buffers_parse_or_are_refused(content):
    try:
        messages = split_control(content)
    except errnos.EINVAL:
        return
    assert sum(len(message.data) + s.CMSGHDR.size for message in messages) <= len(content)
