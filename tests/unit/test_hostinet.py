"""Internet sockets of guests passed through to the host: loopback only, both loops."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket as host
import struct
from collections.abc import AsyncIterator

import pytest
import uvloop
from guest_sockets import DATA, SocketGuest, finish, make_socket_guest

from asyncsentry import errnos
from asyncsentry.abi import in_h, netlink_h, tcp_h
from asyncsentry.abi import socket_h as s
from asyncsentry.net.hostnetlink import questions_in
from asyncsentry.net.interface_ioctls import SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFINDEX
from asyncsentry.syscalls.socket_receive import recvfrom
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.waiter import POLLHUP, POLLIN, POLLOUT, POLLRDHUP, Waiter

STREAM, DGRAM, NONBLOCK = s.SOCK_STREAM, s.SOCK_DGRAM, s.SOCK_NONBLOCK
LOOPBACK = "127.0.0.1"


@contextlib.asynccontextmanager
async def networked_guest() -> AsyncIterator[SocketGuest]:
    guest = await make_socket_guest()
    guest.thread.kernel.network = "host"
    yield guest
    await guest.thread.fds.close_all()
    poller = guest.thread.kernel.socket_families[s.AF_INET].poller
    assert poller._epoll is None


@pytest.fixture
async def g() -> AsyncIterator[SocketGuest]:
    async with networked_guest() as guest:
        yield guest


def inet(port: int, address: str = LOOPBACK) -> bytes:
    return struct.pack("<H", s.AF_INET) + struct.pack(">H", port) + host.inet_aton(address) + bytes(8)


def port_of(name: bytes) -> int:
    return int.from_bytes(name[2:4], "big")


async def listener(g: SocketGuest) -> tuple[int, bytes]:
    fd = await g.socket(STREAM, s.AF_INET)
    await g.bind(fd, inet(0))
    g.listen(fd)
    return fd, g.local_name(fd)


async def connection(g: SocketGuest) -> tuple[int, int]:
    listening, name = await listener(g)
    client = await g.socket(STREAM, s.AF_INET)
    await g.connect(client, name)
    server, peer = await g.accept(listening)
    assert peer == g.local_name(client)
    await g.close(listening)
    return client, server


async def within(awaitable):
    return await asyncio.wait_for(awaitable, 5)


async def test_a_conversation_over_tcp(g):
    client, server = await connection(g)
    await g.send(client, b"hello")
    assert await within(g.recv(server)) == b"hello"
    await g.write(server, b"bye")
    await g.close(server)
    assert await within(g.read(client)) == b"bye"
    assert await within(g.recv(client)) == b""


async def test_accept_and_receive_wait(g):
    listening, name = await listener(g)
    accepting = await g.guest.start(g.accept(listening))
    assert not accepting.done()
    other = g.second_thread()
    client = await other.socket(STREAM, s.AF_INET)
    await other.connect(client, name)
    server, _ = await within(accepting)
    receiving = await g.guest.start(g.recv(server, 6, s.MSG_WAITALL))
    await other.send(client, b"abc")
    await asyncio.sleep(0.01)
    assert not receiving.done()
    await other.send(client, b"def")
    assert await within(receiving) == b"abcdef"


async def test_a_nonblocking_connect_reports_how_it_ended(g):
    with host.socket() as silent:
        silent.bind((LOOPBACK, 0))
        refused = inet(silent.getsockname()[1])
        fd = await g.socket(STREAM | NONBLOCK, s.AF_INET)
        with pytest.raises((errnos.EINPROGRESS, errnos.ECONNREFUSED)):
            await g.connect(fd, refused)
    _, name = await listener(g)
    fd = await g.socket(STREAM | NONBLOCK, s.AF_INET)
    try:
        await g.connect(fd, name)
    except errnos.EINPROGRESS:
        await within(g.thread.block(g.file(fd).queue, POLLOUT))
    assert g.get_int(fd, s.SO_ERROR) == 0
    assert g.poll(fd) & POLLOUT


async def test_a_refused_connect(g):
    with host.socket() as silent:
        silent.bind((LOOPBACK, 0))
        with pytest.raises(errnos.ECONNREFUSED):
            await within(g.connect(await g.socket(STREAM, s.AF_INET), inet(silent.getsockname()[1])))


async def test_a_writer_waits_for_a_slow_reader(g):
    client, server = await connection(g)
    other = g.second_thread()
    file = g.file(client)
    written = 0
    while True:
        try:
            written += file.try_write(bytes(1 << 20))
        except errnos.WouldBlock:
            break
    assert not g.poll(client) & POLLOUT
    waiting = await g.guest.start(g.send(client, b"last"))
    assert not waiting.done()
    while written + 4 > 0:
        written -= len(await within(other.recv(server, 0x6000)))
        if written == -4:
            break
    assert await within(waiting) == 4


async def test_polling(g):
    client, server = await connection(g)
    assert g.poll(server) & (POLLIN | POLLOUT | POLLHUP) == POLLOUT
    seen: list[int] = []
    waiter = Waiter(seen.append, POLLIN | POLLRDHUP)
    g.file(server).queue.add(waiter)
    await g.send(client, b"x")
    await asyncio.sleep(0.01)
    assert seen
    seen.clear()
    await asyncio.sleep(0.01)
    assert not seen  # unread data is told of once
    await g.send(client, b"y")
    await asyncio.sleep(0.01)
    assert seen
    await g.close(client)
    await asyncio.sleep(0.01)
    assert g.poll(server) & (POLLIN | POLLRDHUP) == POLLIN | POLLRDHUP
    g.file(server).queue.remove(waiter)


async def test_who_joins_hears_at_once_what_is_ready_and_not_again_later(g):
    fd = await g.socket(DGRAM, s.AF_INET)
    seen: list[int] = []
    waiter = Waiter(seen.append, POLLOUT)
    g.file(fd).queue.add(waiter)
    assert len(seen) == 1
    assert seen[0] & POLLOUT
    await asyncio.sleep(0.01)
    assert len(seen) == 1
    g.file(fd).queue.remove(waiter)


async def test_epipe_comes_with_a_signal(g):
    client, _ = await connection(g)
    g.file(client).shutdown(s.SHUT_WR)
    with pytest.raises(errnos.EPIPE):
        await g.send(client, b"x")
    assert g.thread.interrupt_pending


async def test_datagrams(g):
    one, two = await g.socket(DGRAM, s.AF_INET), await g.socket(DGRAM, s.AF_INET)
    for fd in (one, two):
        await g.bind(fd, inet(0))
    await g.send(one, b"hello", to=g.local_name(two))
    assert await within(g.recvfrom(two)) == (b"hello", g.local_name(one))
    await g.send(one, b"a long one", to=g.local_name(two))
    message = await within(g.recvmsg(two, 4))
    assert message.data == b"a lo"
    assert message.flags & s.MSG_TRUNC
    await g.connect(two, g.local_name(one))
    await g.send(two, b"connected")
    assert await within(g.recv(one, 3, s.MSG_TRUNC)) == b"con"
    with pytest.raises(errnos.EMSGSIZE):
        g.file(two).try_sendmsg(bytes(0xFFF0))
    await g.connect(two, bytes(16))
    with pytest.raises(errnos.ENOTCONN):
        g.peer_name(two)


async def test_control_messages_that_pass(g):
    one, two = await g.socket(DGRAM, s.AF_INET), await g.socket(DGRAM, s.AF_INET)
    await g.bind(two, inet(0))
    g.set(two, in_h.IP_PKTINFO, 1, in_h.IPPROTO_IP)
    ttl = (in_h.IPPROTO_IP, in_h.IP_TTL, struct.pack("<i", 7))
    g.set(two, in_h.IP_RECVTTL, 1, in_h.IPPROTO_IP)
    await g.sendmsg(one, b"x", [ttl], to=g.local_name(two))
    control = (await within(g.recvmsg(two))).control
    assert ttl in control
    assert [kind for _, kind, data in control if data[4:8] == host.inet_aton(LOOPBACK)] == [in_h.IP_PKTINFO]
    with pytest.raises(errnos.EINVAL):
        await g.sendmsg(one, b"x", [(in_h.IPPROTO_IP, in_h.IP_OPTIONS, b"")], to=g.local_name(two))


async def test_truncating_a_stream_throws_bytes_away_and_shows_none(g):
    client, server = await connection(g)
    await g.send(client, b"secret")
    before = b"........"
    g.put(DATA, before)
    assert await within(finish(recvfrom(g.thread, server, g.at(DATA), 4, s.MSG_TRUNC, 0, 0))) == 4
    assert g.memory.read(g.at(DATA), 8) == before
    assert await within(g.recv(server)) == b"et"


async def test_without_a_descriptor_left_only_the_call_fails(g):
    fd = await g.socket(DGRAM, s.AF_INET)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(errnos.EMFILE):
            g.file(fd).ioctl(g.thread, SIOCGIFFLAGS, g.put(DATA, bytes(40)))
        waiter = Waiter(print, POLLIN)
        g.file(fd).queue.add(waiter)  # a wait cannot fail
        g.file(fd).queue.remove(waiter)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_options(g):
    fd = await g.socket(STREAM, s.AF_INET)
    g.set(fd, tcp_h.TCP_NODELAY, 1, in_h.IPPROTO_TCP)
    assert g.get_int(fd, tcp_h.TCP_NODELAY, in_h.IPPROTO_TCP) == 1
    g.set(fd, s.SO_SNDBUF, 20000)
    assert g.get_int(fd, s.SO_SNDBUF) == 40000
    assert g.get_int(fd, s.SO_TYPE) == STREAM
    assert g.get_int(fd, s.SO_DOMAIN) == s.AF_INET
    assert g.get_int(fd, s.SO_PROTOCOL) == in_h.IPPROTO_TCP
    assert len(g.get(fd, tcp_h.TCP_INFO, in_h.IPPROTO_TCP, room=104)) == 104
    g.set(fd, s.SO_LINGER, s.LINGER.pack(1, 0))
    assert g.get(fd, s.SO_LINGER, room=8) == s.LINGER.pack(1, 0)
    for name in (s.SO_ATTACH_FILTER, s.SO_PEERCRED, 9999):
        with pytest.raises(errnos.ENOPROTOOPT):
            g.set(fd, name, 1)


async def lingering_socket(g: SocketGuest, listener: host.socket) -> int:
    """Connects, sends what fits to who never reads, and lingers for an hour."""
    fd = await g.socket(STREAM | NONBLOCK, s.AF_INET)
    with contextlib.suppress(errnos.EINPROGRESS):
        await g.connect(fd, inet(listener.getsockname()[1]))
    with contextlib.suppress(errnos.EAGAIN):
        while True:
            await g.send(fd, bytes(4000))
    g.set(fd, s.SO_LINGER, s.LINGER.pack(1, 3600))
    return fd


async def test_only_a_program_that_lives_on_lingers(g):
    with host.create_server((LOOPBACK, 0)) as listener:
        fd = await lingering_socket(g, listener)
        await within(g.close(fd))
        fd = await lingering_socket(g, listener)
        closing = asyncio.ensure_future(g.close(fd))
        g.thread.task = closing
        g.thread.kernel.threads[g.thread.tid] = g.thread
        await asyncio.sleep(0.05)
        assert not closing.done()
        closing.cancel()


async def test_a_low_water_mark_makes_a_receive_wait(g):
    client, server = await connection(g)
    g.set(server, s.SO_RCVLOWAT, 5)
    receiving = await g.guest.start(g.recv(server))
    other = g.second_thread()
    await other.send(client, b"abc")
    await asyncio.sleep(0.01)
    assert not receiving.done()
    await other.send(client, b"def")
    assert await within(receiving) == b"abcdef"


async def test_a_receive_timeout(g):
    fd = await g.socket(DGRAM, s.AF_INET)
    g.set(fd, s.SO_RCVTIMEO, s.TIMEVAL.pack(1, 0))
    receiving = await g.guest.start(g.recv(fd))
    g.guest.clock.advance(1_000_000_000)
    with pytest.raises(errnos.EAGAIN):
        await within(receiving)


async def test_ipv6(g):
    fd = await g.socket(DGRAM, s.AF_INET6)
    g.set(fd, in_h.IPV6_V6ONLY, 1, in_h.IPPROTO_IPV6)
    assert g.get_int(fd, in_h.IPV6_V6ONLY, in_h.IPPROTO_IPV6) == 1
    with pytest.raises((errnos.EAFNOSUPPORT, errnos.EINVAL)):
        await g.bind(fd, inet(0))


async def test_what_does_not_pass(g):
    for kind, protocol, error in ((s.SOCK_RAW, 1, errnos.EPERM), (STREAM, in_h.IPPROTO_UDP, errnos.EPROTONOSUPPORT),
                                  (s.SOCK_SEQPACKET, 0, errnos.ESOCKTNOSUPPORT)):
        with pytest.raises(error):
            await g.socket(kind, s.AF_INET, protocol)
    await g.socket(STREAM, s.AF_INET)
    user = g.second_process(Credentials.for_user(1000, 1000))
    fd = await user.socket(STREAM, s.AF_INET)
    with pytest.raises(errnos.EACCES):
        await user.bind(fd, inet(80))
    await user.close(fd)


async def test_interfaces(g):
    fd = await g.socket(DGRAM, s.AF_INET)
    place = g.put(0x105000, b"lo".ljust(40, b"\0"))
    assert g.file(fd).ioctl(g.thread, SIOCGIFINDEX, place) == 0
    assert g.memory.read(place, 20) == b"lo".ljust(16, b"\0") + b"\1\0\0\0"
    assert g.file(fd).ioctl(g.thread, SIOCGIFFLAGS, place) == 0
    place = g.put(0x105000, struct.pack("<i4xQ", 400, g.at(0x106000)))
    assert g.file(fd).ioctl(g.thread, SIOCGIFCONF, place) == 0
    assert b"lo\0" in g.memory.read(g.at(0x106000), g.memory.read_i32(place))
    with pytest.raises(errnos.ENOTTY):
        g.file(fd).ioctl(g.thread, 0x8914, place)  # SIOCSIFFLAGS


async def test_interfaces_can_be_listed_but_not_changed(g):
    fd = await g.socket(s.SOCK_RAW, s.AF_NETLINK)
    await g.bind(fd, netlink_h.SOCKADDR_NL.pack(s.AF_NETLINK, 0, 0, 0))
    dump = netlink_h.NLMSGHDR.pack(20, netlink_h.RTM_GETLINK, 0x301, 7, 0) + bytes(4)
    await g.send(fd, dump, to=netlink_h.SOCKADDR_NL.pack(s.AF_NETLINK, 0, 0, 0))
    assert b"lo\0" in await within(g.recv(fd, 0x4000))
    change = netlink_h.NLMSGHDR.pack(32, 19, 5, 8, 0) + bytes(16)
    for request in (change, dump + change):
        with pytest.raises(errnos.EPERM):
            await g.send(fd, request)
        with pytest.raises(errnos.EPERM):
            await g.write(fd, request)
    assert questions_in(dump + change[:31]) == dump
    with pytest.raises(errnos.EPERM):
        await g.send(fd, dump, to=netlink_h.SOCKADDR_NL.pack(s.AF_NETLINK, 0, 1, 0))
    with pytest.raises(errnos.EPROTONOSUPPORT):
        await g.socket(s.SOCK_RAW, s.AF_NETLINK, 15)


async def test_without_a_network_there_is_no_internet_family():
    guest = await make_socket_guest()
    with pytest.raises(errnos.EAFNOSUPPORT):
        await guest.socket(STREAM, s.AF_INET)


SCENARIOS = [test_a_conversation_over_tcp, test_accept_and_receive_wait, test_a_writer_waits_for_a_slow_reader,
             test_a_nonblocking_connect_reports_how_it_ended, test_polling]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_same_on_uvloop(scenario):
    async def run() -> None:
        async with networked_guest() as guest:
            await scenario(guest)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
