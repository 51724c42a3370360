"""What programs see of AF_UNIX sockets, unix(7)."""

from __future__ import annotations

import stat

import pytest
from guest_sockets import UNIX, SocketGuest, fds_in, make_socket_guest, rights, unix
from guest_thread import settle

from asyncsentry import errnos
from asyncsentry.abi import socket_h as s
from asyncsentry.errnos import Interrupted
from asyncsentry.fs.inode import Owner
from asyncsentry.fs.path import resolve
from asyncsentry.fs.pipe import make_pipe
from asyncsentry.tasks.credentials import Credentials
from asyncsentry.waiter import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP

STREAM, DGRAM, SEQPACKET = s.SOCK_STREAM, s.SOCK_DGRAM, s.SOCK_SEQPACKET
INTERESTING = POLLIN | POLLOUT | POLLHUP | POLLERR | POLLRDHUP
NONBLOCK = s.SOCK_NONBLOCK


@pytest.fixture
async def g() -> SocketGuest:
    return await make_socket_guest()


async def make_pipe_fds(g: SocketGuest) -> tuple[int, int]:
    ends = make_pipe(g.thread.kernel.allocate_inode(), 0, Owner(0, 0), 0)
    return g.thread.fds.install(ends[0]), g.thread.fds.install(ends[1])


# Streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [STREAM, DGRAM, SEQPACKET])
async def test_what_goes_in_at_one_end_comes_out_at_the_other(g, kind):
    a, b = await g.pair(kind)
    assert await g.send(a, b"hello") == 5
    assert await g.recv(b) == b"hello"
    assert await g.write(b, b"and back") == 8
    assert await g.read(a) == b"and back"


async def test_a_stream_has_no_boundaries(g):
    a, b = await g.pair()
    for text in (b"ab", b"cde", b"f"):
        await g.send(a, text)
    assert await g.recv(b, 4) == b"abcd"
    assert await g.recv(b, 4, s.MSG_PEEK) == b"ef"
    assert await g.recv(b, 4) == b"ef"


async def test_a_reader_waits_for_a_writer(g):
    a, b = await g.pair()
    reading = await g.guest.start(g.recv(b))
    assert not reading.done()
    await g.second_thread().send(a, b"x")
    await settle()
    assert await reading == b"x"


async def test_waitall_waits_for_all(g):
    a, b = await g.pair()
    other = g.second_thread()
    reading = await g.guest.start(g.recv(b, 6, s.MSG_WAITALL))
    await other.send(a, b"abc")
    await settle()
    assert not reading.done()
    await other.send(a, b"def")
    await settle()
    assert await reading == b"abcdef"


async def test_waitall_ends_at_end_of_file(g):
    a, b = await g.pair()
    await g.send(a, b"abc")
    await g.close(a)
    assert await g.recv(b, 6, s.MSG_WAITALL) == b"abc"
    assert await g.recv(b, 6, s.MSG_WAITALL) == b""


async def test_nothing_to_read_is_eagain_for_those_who_do_not_wait(g):
    _, b = await g.pair()
    with pytest.raises(errnos.EAGAIN):
        await g.recv(b, 1, s.MSG_DONTWAIT)


async def test_a_full_buffer_stops_the_writer_until_it_is_read(g):
    a, b = await g.pair(STREAM | NONBLOCK)
    total = 0
    while g.file(a).charged < g.file(a).options.send_buffer:
        total += await g.send(a, bytes(0x4000))
    with pytest.raises(errnos.EAGAIN):
        await g.send(a, bytes(0x4000))
    assert 150_000 < total < 300_000
    assert not g.poll(a) & POLLOUT
    while total:
        total -= len(await g.recv(b, 0x4000))
    assert g.poll(a) & POLLOUT


async def test_a_blocked_writer_goes_on_when_there_is_room(g):
    a, b = await g.pair()
    g.set(a, s.SO_SNDBUF, 4096)
    other = g.second_thread()
    writing = await g.guest.start(g.send(a, bytes(0x5000)))
    assert not writing.done()
    got = 0
    while got < 0x5000:
        got += len(await other.recv(b))
        await settle()
    assert await writing == 0x5000


async def test_closing_gives_end_of_file_and_then_epipe(g):
    a, b = await g.pair()
    await g.send(a, b"last words")
    await g.close(a)
    assert g.poll(b) & INTERESTING == POLLIN | POLLOUT | POLLHUP | POLLRDHUP
    assert await g.recv(b) == b"last words"
    assert await g.recv(b) == b""
    with pytest.raises(errnos.EPIPE):
        await g.send(b, b"too late", s.MSG_NOSIGNAL)
    assert not g.thread.interrupt_pending
    with pytest.raises(errnos.EPIPE):
        await g.send(b, b"too late")
    assert g.thread.interrupt_pending  # SIGPIPE


async def test_closing_with_unread_data_resets_the_peer(g):
    a, b = await g.pair()
    await g.send(b, b"never read")
    await g.close(a)
    assert g.poll(b) & INTERESTING == POLLIN | POLLOUT | POLLHUP | POLLRDHUP | POLLERR
    with pytest.raises(errnos.ECONNRESET):
        await g.recv(b)
    assert await g.recv(b) == b""


async def test_half_close(g):
    a, b = await g.pair()
    await g.send(a, b"request")
    g.file(a).shutdown(s.SHUT_WR)
    assert g.poll(b) & INTERESTING == POLLIN | POLLOUT | POLLRDHUP
    assert await g.recv(b) == b"request"
    assert await g.recv(b) == b""
    await g.send(b, b"reply")
    assert await g.recv(a) == b"reply"
    with pytest.raises(errnos.EPIPE):
        await g.send(a, b"more", s.MSG_NOSIGNAL)


async def test_peeking_while_waiting_for_all(g):
    a, b = await g.pair()
    await g.send(a, b"ab")
    other = g.second_thread()
    peeking = await g.guest.start(g.recv(b, 4, s.MSG_PEEK | s.MSG_WAITALL))
    assert not peeking.done()
    await other.send(a, b"cd")
    await settle()
    assert await peeking == b"abcd"
    assert await g.recv(b) == b"abcd"


async def test_a_receive_timeout_ends_in_eagain(g):
    _, b = await g.pair()
    g.set(b, s.SO_RCVTIMEO, s.TIMEVAL.pack(1, 500_000))
    assert g.get(b, s.SO_RCVTIMEO, room=16) == s.TIMEVAL.pack(1, 500_000)
    reading = await g.guest.start(g.recv(b))
    g.guest.clock.advance(1_499_999_999)
    await settle()
    assert not reading.done()
    g.guest.clock.advance(1)
    await settle()
    with pytest.raises(errnos.EAGAIN):
        await reading


async def test_a_signal_interrupts_a_receive(g):
    _, b = await g.pair()
    reading = await g.guest.start(g.recv(b))
    g.thread.interrupt()
    await settle()
    with pytest.raises(Interrupted):
        await reading


async def test_a_signal_ends_a_receive_with_timeout_for_good(g):
    _, b = await g.pair()
    g.set(b, s.SO_RCVTIMEO, s.TIMEVAL.pack(9, 0))
    reading = await g.guest.start(g.recv(b))
    g.thread.interrupt()
    await settle()
    with pytest.raises(errnos.EINTR):
        await reading


async def test_no_urgent_data(g):
    a, _ = await g.pair()
    with pytest.raises(errnos.EOPNOTSUPP):
        await g.send(a, b"!", s.MSG_OOB)


async def test_ioctls_count_bytes(g):
    a, b = await g.pair()
    await g.send(a, b"12345")
    await g.send(a, b"678")
    g.file(b).ioctl(g.thread, s.SIOCINQ, g.at(0x100000))
    assert g.memory.read_i32(g.at(0x100000)) == 8
    g.file(a).ioctl(g.thread, s.SIOCOUTQ, g.at(0x100000))
    assert g.memory.read_i32(g.at(0x100000)) > 8


# Connections -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [unix("/server"), unix("@server")])
@pytest.mark.parametrize("kind", [STREAM, SEQPACKET])
async def test_connecting_to_a_listener(g, name, kind):
    listening = await g.listener(name, kind)
    client = await g.socket(kind)
    assert g.poll(client) & INTERESTING == POLLOUT | POLLHUP
    assert g.poll(listening) & INTERESTING == 0
    await g.connect(client, name)
    assert g.poll(listening) & INTERESTING == POLLIN
    await g.send(client, b"early")
    server, peer = await g.accept(listening)
    assert peer == UNIX
    assert g.peer_name(client) == name == g.local_name(server) == g.local_name(listening)
    assert g.local_name(client) == g.peer_name(server) == UNIX
    assert await g.recv(server) == b"early"
    await g.send(server, b"answer")
    assert await g.recv(client) == b"answer"
    assert g.get_int(listening, s.SO_ACCEPTCONN) == 1
    assert g.get_int(server, s.SO_ACCEPTCONN) == 0
    with pytest.raises(errnos.EISCONN):
        await g.connect(client, name)


async def test_accept_waits_for_a_connection(g):
    listening = await g.listener(unix("@s"))
    accepting = await g.guest.start(g.accept(listening))
    assert not accepting.done()
    other = g.second_thread()
    await other.connect(await other.socket(), unix("@s"))
    await settle()
    assert (await accepting)[1] == UNIX


async def test_a_full_backlog_blocks_or_says_eagain(g):
    listening = await g.listener(unix("@s"), backlog=0)
    await g.connect(await g.socket(), unix("@s"))
    with pytest.raises(errnos.EAGAIN):
        await g.connect(await g.socket(STREAM | NONBLOCK), unix("@s"))
    other = g.second_thread()
    connecting = await g.guest.start(other.connect(await g.socket(), unix("@s")))
    assert not connecting.done()
    await g.accept(listening)
    await settle()
    assert await connecting == 0


async def test_who_waits_for_a_listener_that_closes_is_refused(g):
    listening = await g.listener(unix("@s"), backlog=0)
    first = await g.socket()
    await g.connect(first, unix("@s"))
    other = g.second_thread()
    connecting = await g.guest.start(other.connect(await g.socket(), unix("@s")))
    await g.close(listening)
    await settle()
    with pytest.raises(errnos.ECONNREFUSED):
        await connecting
    with pytest.raises(errnos.ECONNRESET):
        await g.recv(first)
    assert await g.recv(first) == b""


async def test_nobody_there(g):
    client = await g.socket()
    with pytest.raises(errnos.ECONNREFUSED):
        await g.connect(client, unix("@nobody"))
    with pytest.raises(errnos.ENOENT):
        await g.connect(client, unix("/nothing"))
    bound = await g.socket()
    await g.bind(bound, unix("/bound"))
    with pytest.raises(errnos.ECONNREFUSED):
        await g.connect(client, unix("/bound"))
    await g.close(bound)
    with pytest.raises(errnos.ECONNREFUSED):
        await g.connect(client, unix("/bound"))
    with pytest.raises(errnos.EADDRINUSE):
        await g.bind(client, unix("/bound"))


async def test_the_wrong_type_of_socket(g):
    datagram = await g.socket(DGRAM)
    await g.bind(datagram, unix("/d"))
    with pytest.raises(errnos.EPROTOTYPE):
        await g.connect(await g.socket(), unix("/d"))


async def test_a_bound_path_is_a_socket_with_the_umask_applied(g):
    fd = await g.socket()
    await g.bind(fd, unix("/s"))
    inode = (await resolve(g.thread, -100, "/s")).dentry.inode
    assert inode.mode == stat.S_IFSOCK | 0o755
    assert g.local_name(fd) == unix("/s")
    with pytest.raises(errnos.EINVAL):
        await g.bind(fd, unix("/again"))


async def test_connecting_needs_write_permission(g):
    await g.listener(unix("/s"))
    user = g.second_process(Credentials.for_user(1000, 1000))
    with pytest.raises(errnos.EACCES):
        await user.connect(await user.socket(), unix("/s"))


async def test_abstract_names_go_when_the_socket_goes(g):
    fd = await g.socket()
    await g.bind(fd, unix("@n"))
    other = await g.socket()
    with pytest.raises(errnos.EADDRINUSE):
        await g.bind(other, unix("@n"))
    await g.close(fd)
    await g.bind(other, unix("@n"))


async def test_autobind(g):
    fd = await g.socket()
    await g.bind(fd, UNIX)
    assert g.local_name(fd) == UNIX + b"\x0000000"
    other = await g.socket()
    await g.bind(other, UNIX)
    assert g.local_name(other) == UNIX + b"\x0000001"


@pytest.mark.parametrize("name", [b"", b"\1", UNIX + b"x" * 109, b"\2\0abc"])
async def test_addresses_that_are_none(g, name):
    with pytest.raises(errnos.EINVAL):
        await g.bind(await g.socket(), name)


async def test_calls_in_the_wrong_state(g):
    fd = await g.socket()
    with pytest.raises(errnos.EINVAL):
        g.listen(fd)
    with pytest.raises(errnos.EINVAL):
        await g.accept(fd)
    with pytest.raises(errnos.ENOTCONN):
        await g.send(fd, b"x")
    with pytest.raises(errnos.EINVAL):
        await g.recv(fd)
    with pytest.raises(errnos.ENOTCONN):
        g.peer_name(fd)
    with pytest.raises(errnos.EOPNOTSUPP):
        await g.send(fd, b"x", to=unix("@y"))
    a, _ = await g.pair()
    with pytest.raises(errnos.EISCONN):
        await g.send(a, b"x", to=unix("@y"))
    datagram = await g.socket(DGRAM)
    with pytest.raises(errnos.EOPNOTSUPP):
        g.listen(datagram)
    with pytest.raises(errnos.EOPNOTSUPP):
        await g.accept(datagram)


async def test_shutting_a_listener_down_ends_accept(g):
    listening = await g.listener(unix("@s"))
    accepting = await g.guest.start(g.accept(listening))
    g.file(listening).shutdown(s.SHUT_RD)
    await settle()
    with pytest.raises(errnos.EINVAL):
        await accepting
    with pytest.raises(errnos.ECONNREFUSED):
        await g.connect(await g.socket(), unix("@s"))


# Datagrams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DGRAM, SEQPACKET])
async def test_messages_stay_whole_and_are_cut_to_the_buffer(g, kind):
    a, b = await g.pair(kind)
    for text in (b"first", b"", b"third"):
        await g.send(a, text)
    assert await g.recv(b, 3) == b"fir"
    assert await g.recv(b) == b""
    message = await g.recvmsg(b, 2, flags=s.MSG_PEEK | s.MSG_TRUNC)
    assert message.data == b"th"
    assert message.flags & s.MSG_TRUNC
    assert await g.recv(b) == b"third"


async def test_the_sender_of_a_datagram_is_known(g):
    one, two = await g.socket(DGRAM), await g.socket(DGRAM)
    await g.bind(one, unix("/one"))
    await g.bind(two, unix("@two"))
    await g.send(one, b"hi", to=unix("@two"))
    assert await g.recvfrom(two) == (b"hi", unix("/one"))
    await g.send(await g.socket(DGRAM), b"anonymous", to=unix("@two"))
    assert await g.recvfrom(two) == (b"anonymous", b"")


async def test_a_connected_datagram_socket_takes_messages_of_its_peer_only(g):
    one, two, three = [await g.socket(DGRAM) for _ in range(3)]
    await g.bind(one, unix("@one"))
    await g.bind(two, unix("@two"))
    await g.connect(one, unix("@two"))
    await g.send(two, b"from two", to=unix("@one"))
    with pytest.raises(errnos.EPERM):
        await g.send(three, b"from three", to=unix("@one"))
    with pytest.raises(errnos.EPERM):
        await g.connect(three, unix("@one"))
    await g.send(one, b"to two")
    assert await g.recv(two) == b"to two"
    await g.connect(one, bytes(2))  # AF_UNSPEC
    await g.send(three, b"from three", to=unix("@one"))
    with pytest.raises(errnos.ENOTCONN):
        await g.send(one, b"nowhere")


async def test_a_datagram_queue_holds_few_messages_of_strangers(g):
    g.thread.kernel.sysctls.set("net.unix.max_dgram_qlen", "10")
    receiver, sender = await g.socket(DGRAM), await g.socket(DGRAM | NONBLOCK)
    await g.bind(receiver, unix("@r"))
    await g.connect(sender, unix("@r"))
    for _ in range(11):
        await g.send(sender, b"x")
    with pytest.raises(errnos.EAGAIN):
        await g.send(sender, b"x")
    assert not g.poll(sender) & POLLOUT
    g.thread.fds.get(sender).flags &= ~NONBLOCK
    other = g.second_thread()
    sending = await g.guest.start(other.send(sender, b"last"))
    assert not sending.done()
    await g.recv(receiver)
    await settle()
    assert await sending == 4
    await g.recv(receiver)
    assert g.poll(sender) & POLLOUT


async def test_a_message_that_never_fits(g):
    a, _ = await g.pair(DGRAM)
    g.set(a, s.SO_SNDBUF, 0)
    with pytest.raises(errnos.EMSGSIZE):
        await g.send(a, bytes(4608 - 31))


async def test_sending_to_a_closed_datagram_socket(g):
    a, b = await g.pair(DGRAM)
    await g.close(b)
    assert g.poll(a) & INTERESTING == POLLOUT
    with pytest.raises(errnos.ECONNREFUSED):
        await g.send(a, b"x")
    with pytest.raises(errnos.ENOTCONN):
        await g.send(a, b"x")


async def test_a_closed_seqpacket_peer(g):
    a, b = await g.pair(SEQPACKET)
    await g.send(b, b"last")
    await g.close(b)
    assert await g.recv(a) == b"last"
    assert await g.recv(a) == b""
    with pytest.raises(errnos.EPIPE):
        await g.send(a, b"x")
    assert not g.thread.interrupt_pending


# Ancillary data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [STREAM, DGRAM, SEQPACKET])
async def test_files_travel(g, kind):
    a, b = await g.pair(kind)
    r, w = await make_pipe_fds(g)
    await g.sendmsg(a, b"fd", [rights(w)])
    await g.close(w)
    message = await g.recvmsg(b, flags=s.MSG_CMSG_CLOEXEC)
    (fd,) = fds_in(message)
    assert message.data == b"fd"
    assert fd in g.thread.fds.close_on_exec
    await g.write(fd, b"through")
    assert await g.read(r) == b"through"
    await g.close(fd)
    assert await g.read(r) == b""


async def test_files_are_a_boundary_of_the_stream(g):
    a, b = await g.pair()
    r, _ = await make_pipe_fds(g)
    await g.send(a, b"1234")
    await g.sendmsg(a, b"5", [rights(r)])
    await g.send(a, b"6789")
    message = await g.recvmsg(b, 20)
    assert message.data == b"12345"
    assert len(fds_in(message)) == 1
    message = await g.recvmsg(b, 20)
    assert message.data == b"6789"
    assert not message.control


async def test_sockets_in_flight_within_each_other_end_with_the_outermost(g):
    inner = None
    for _ in range(400):
        a, b = await g.pair()
        if inner is not None:
            await g.sendmsg(a, b"x", [rights(inner)])
            await g.close(inner)
        await g.close(a)
        inner = b
    await g.close(inner)
    unix = g.thread.kernel.unix
    assert (len(unix.sockets), len(unix.in_flight), unix.discarded) == (0, 0, [])


async def test_files_without_room_are_closed(g):
    a, b = await g.pair()
    r, w = await make_pipe_fds(g)
    await g.sendmsg(a, b"x", [rights(w, w)])
    await g.close(w)
    message = await g.recvmsg(b, control=20)
    assert message.flags & s.MSG_CTRUNC
    assert len(fds_in(message)) == 1
    await g.close(*fds_in(message))
    assert await g.read(r) == b""


async def test_files_nobody_asks_for_are_closed(g):
    a, b = await g.pair()
    for receive in (g.recv, g.read):
        r, w = await make_pipe_fds(g)
        await g.sendmsg(a, b"x", [rights(w)])
        await g.close(w)
        await receive(b)
        await settle()
        assert await g.read(r) == b""


async def test_files_in_a_socket_that_is_closed_are_closed(g):
    a, b = await g.pair()
    r, w = await make_pipe_fds(g)
    await g.sendmsg(a, b"x", [rights(w)])
    await g.close(w, b)
    assert await g.read(r) == b""
    assert not g.thread.kernel.unix.in_flight


async def test_peeked_files_come_again(g):
    a, b = await g.pair()
    r, w = await make_pipe_fds(g)
    await g.sendmsg(a, b"x", [rights(w)])
    await g.close(w)
    peeked = fds_in(await g.recvmsg(b, flags=s.MSG_PEEK))
    taken = fds_in(await g.recvmsg(b))
    await g.close(*peeked)
    await g.write(taken[0], b"y")
    assert await g.read(r) == b"y"


async def test_a_failed_send_keeps_no_files(g):
    a, b = await g.pair()
    r, w = await make_pipe_fds(g)
    await g.close(b)
    with pytest.raises(errnos.EPIPE):
        await g.sendmsg(a, b"x", [rights(w)], flags=s.MSG_NOSIGNAL)
    await g.close(w)
    assert await g.read(r) == b""


async def test_wrong_descriptors_and_control_messages(g):
    a, _ = await g.pair()
    with pytest.raises(errnos.EBADF):
        await g.sendmsg(a, b"x", [rights(a, 999)])
    with pytest.raises(errnos.EINVAL):
        await g.sendmsg(a, b"x", [rights(*[a] * 254)])
    with pytest.raises(errnos.EINVAL):
        await g.sendmsg(a, b"x", [(s.SOL_SOCKET, 77, b"")])
    assert g.file(a).references == 1


async def test_sockets_that_only_hold_each_other_are_collected(g):
    a, b = await g.pair()
    r, w = await make_pipe_fds(g)
    await g.sendmsg(a, b"x", [rights(b, w)])
    await g.sendmsg(b, b"x", [rights(a)])
    await g.close(a, b, w)
    assert g.thread.kernel.unix.in_flight
    await g.close(*await g.pair())
    assert not g.thread.kernel.unix.in_flight
    assert not g.thread.kernel.unix.sockets
    assert await g.read(r) == b""


async def test_garbage_is_collected_without_a_close(g):
    for _ in range(100):
        a, b = await g.pair()
        await g.sendmsg(a, b"x", [rights(b)])
        await g.sendmsg(b, b"x", [rights(a)])
        await g.close(a, b)
    assert len(g.thread.kernel.unix.sockets) < 140


async def test_a_message_socket_has_no_sigpipe(g):
    a, b = await g.pair(SEQPACKET)
    await g.close(b)
    with pytest.raises(errnos.EPIPE):
        await g.write(a, b"x")
    assert not g.thread.interrupt_pending


async def test_sockets_in_flight_to_somebody_are_not_collected(g):
    a, b = await g.pair()
    c, d = await g.pair()
    await g.sendmsg(a, b"x", [rights(c)])
    await g.send(d, b"kept")
    await g.close(c)
    await g.close(*await g.pair())
    (fd,) = fds_in(await g.recvmsg(b))
    assert await g.recv(fd) == b"kept"


async def test_credentials_come_with_every_message_once_asked_for(g):
    a, b = await g.pair()
    g.set(b, s.SO_PASSCRED, 1)
    await g.send(a, b"x")
    message = await g.recvmsg(b)
    assert message.control == [(s.SOL_SOCKET, s.SCM_CREDENTIALS, s.UCRED.pack(100, 0, 0))]


async def test_credentials_of_others_may_not_be_claimed(g):
    user = g.second_process(Credentials.for_user(1000, 1000))
    a, b = await user.pair()
    own = user.thread.process.pid
    user.set(b, s.SO_PASSCRED, 1)
    for claim in ((100, 1000, 1000), (own, 0, 1000), (own, 1000, 0)):
        with pytest.raises(errnos.EPERM):
            await user.sendmsg(a, b"x", [(s.SOL_SOCKET, s.SCM_CREDENTIALS, s.UCRED.pack(*claim))])
    await user.sendmsg(a, b"x", [(s.SOL_SOCKET, s.SCM_CREDENTIALS, s.UCRED.pack(own, 1000, 1000))])
    assert (await user.recvmsg(b)).control == [(s.SOL_SOCKET, s.SCM_CREDENTIALS, s.UCRED.pack(own, 1000, 1000))]
    root_a, root_b = await g.pair()
    g.set(root_b, s.SO_PASSCRED, 1)
    claim = s.UCRED.pack(own, 7, 8)
    await g.sendmsg(root_a, b"x", [(s.SOL_SOCKET, s.SCM_CREDENTIALS, claim)])
    assert (await g.recvmsg(root_b)).control == [(s.SOL_SOCKET, s.SCM_CREDENTIALS, claim)]


async def test_a_stream_read_does_not_mix_senders(g):
    a, b = await g.pair()
    g.set(b, s.SO_PASSCRED, 1)
    await g.send(a, b"own")
    await g.sendmsg(a, b"other", [(s.SOL_SOCKET, s.SCM_CREDENTIALS, s.UCRED.pack(100, 5, 5))])
    assert (await g.recvmsg(b)).data == b"own"
    assert (await g.recvmsg(b)).data == b"other"


async def test_peer_credentials(g):
    listening = await g.listener(unix("@s"))
    user = g.second_process(Credentials.for_user(1000, 1001, (7, 8)))
    client = await user.socket()
    assert user.get(client, s.SO_PEERCRED, room=12) == s.UCRED.pack(0, 0xFFFFFFFF, 0xFFFFFFFF)
    await user.connect(client, unix("@s"))
    server, _ = await g.accept(listening)
    assert g.get(server, s.SO_PEERCRED, room=12) == s.UCRED.pack(user.thread.process.pid, 1000, 1001)
    assert user.get(client, s.SO_PEERCRED, room=12) == s.UCRED.pack(100, 0, 0)
    assert g.get(server, s.SO_PEERGROUPS, room=8) == b"\7\0\0\0\x08\0\0\0"
    with pytest.raises(errnos.ERANGE):
        g.get(server, s.SO_PEERGROUPS, room=4)
    with pytest.raises(errnos.ENOPROTOOPT):
        g.get(server, s.SO_PEERSEC)


async def test_peeking_from_an_offset(g):
    a, b = await g.pair()
    g.set(b, s.SO_PEEK_OFF, 0)
    for text in (b"abc", b"def", b"gh"):
        await g.send(a, text)
    assert await g.recv(b, 4, s.MSG_PEEK) == b"abcd"
    assert await g.recv(b, 2, s.MSG_PEEK) == b"ef"
    assert await g.recv(b, 3) == b"abc"
    assert await g.recv(b, 9, s.MSG_PEEK) == b"gh"
    assert g.get_int(b, s.SO_PEEK_OFF) == 5
    with pytest.raises(errnos.EAGAIN):
        await g.recv(b, 9, s.MSG_PEEK | s.MSG_DONTWAIT)
