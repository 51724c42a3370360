"""AF_UNIX sockets: what all three types share. See unix(7); net/unix/af_unix.c is the oracle for order of checks.

A socket's received messages wait in *its own* queue but are charged to the *sender's* buffer until they
are read, so flow control needs no window: a sender is writable while its unread bytes fill at most a
quarter of SO_SNDBUF. Types: ``unix_stream.py``, ``unix_datagram.py``; connecting: ``unix_connected.py``.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import socket_h, un_h
from asyncsentry.net import sockets, unix_collect, unix_paths
from asyncsentry.net.ancillary import NOBODY, Ancillary, Caller, PeerIdentity, Ucred, identity_of
from asyncsentry.net.ioctls import MemoryHolder
from asyncsentry.waiter import POLLERR, POLLHUP, POLLRDHUP, POLLWRBAND, READABLE, WRITABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.fs.inode import Inode
    from asyncsentry.kernel import Kernel

_BUFFER_OVERHEAD, _SHARED_INFO, _SMALL_MIN, _PAGE = 256, 320, 512, 4096
_FAMILY = socket_h.SA_FAMILY.pack(socket_h.AF_UNIX)


class State(enum.Enum):
    """Linux's TCP_CLOSE, TCP_ESTABLISHED and TCP_LISTEN, which AF_UNIX borrows."""

    CLOSED = enum.auto()
    ESTABLISHED = enum.auto()
    LISTENING = enum.auto()


def charge_of(length: int) -> int:
    """Gives what a message costs its sender: about the true size of Linux's sk_buff, so that as many fit."""
    if length + _SHARED_INFO <= _PAGE:
        return _BUFFER_OVERHEAD + max(_SMALL_MIN, 1 << (length + _SHARED_INFO - 1).bit_length())
    return _BUFFER_OVERHEAD + _SMALL_MIN + (length + _PAGE - 1) // _PAGE * _PAGE


class Message:
    """One unread message, or one piece of a stream."""

    __slots__ = ("charge", "credentials", "data", "files", "sender", "start")

    def __init__(self, sender: UnixSocket, data: bytes, credentials: Ucred, files: list[File]) -> None:
        self.sender = sender
        self.data = data
        self.start = 0
        """How much of the data has been read."""
        self.credentials = credentials
        self.files = files
        self.charge = charge_of(len(data))


class UnixSocket(sockets.Socket):
    """One AF_UNIX socket."""

    def __init__(self, kernel: Kernel, kind: int, flags: int, creator: PeerIdentity) -> None:
        super().__init__(kernel, socket_h.AF_UNIX, kind, 0, flags, creator)
        self.state = State.CLOSED
        self.peer: UnixSocket | None = None
        self.peer_identity: PeerIdentity | None = None
        """What SO_PEERCRED gives."""
        self.name = b""
        """A path, an abstract name (with its leading NUL), or nothing."""
        self.bound_inode: Inode | None = None
        self.received: deque[Message] = deque()
        self.charged = 0
        """What its own unread messages cost."""
        self.passes_credentials = False
        """Whether SO_PASSCRED is on."""
        self.shutdown_mask = 0
        self.is_dead = False
        self.room_queue = WaitQueue()
        """Notified when the receive queue, or a listener's queue of connections, has room again."""
        kernel.unix.sockets[self] = None

    # Names ----------------------------------------------------------------------------------------

    async def bind(self, caller: Caller, address: bytes) -> None:
        """Binds to a path, an abstract name, or (only the family given) to a free abstract name."""
        name = parse_name(address, may_be_empty=True)
        if not name:
            self.bind_automatically()
            return
        if self.name:
            raise errnos.EINVAL("already bound")
        if name[0] == 0:
            self.kernel.unix.claim_abstract(self, name)
        else:
            self.bound_inode = await unix_paths.make_socket_node(caller, name, self)
        self.name = name

    def bind_automatically(self) -> None:
        """Takes a free abstract name, unless it has a name."""
        if not self.name:
            self.name = self.kernel.unix.claim_any(self)

    async def find_target(self, caller: Caller, address: bytes) -> object:
        """Finds the socket bound to a name; ECONNREFUSED if no one is."""
        name = parse_name(address)
        if name[0] == 0:
            found = self.kernel.unix.find_abstract(self.kind, name)
        else:
            bound = await unix_paths.find_bound(caller, name)
            found = bound if isinstance(bound, UnixSocket) else None
        if found is None or found.is_dead:
            raise errnos.ECONNREFUSED(f"nobody is bound to {name!r}")
        if found.kind != self.kind:
            raise errnos.EPROTOTYPE(f"the socket at {name!r} is of type {found.kind}")
        return found

    def local_name(self) -> bytes:
        """Gives its address; just the family while it is unnamed."""
        return self.address

    def peer_name(self) -> bytes:
        """Gives the peer's address."""
        if self.peer is None:
            raise errnos.ENOTCONN("no peer")
        return self.peer.address

    @property
    def address(self) -> bytes:
        """Its ``sockaddr_un``; a path ends in a NUL, an abstract name is as long as it is."""
        return _FAMILY + self.name + (b"\0" if self.name and self.name[0] else b"")

    @property
    def is_listening(self) -> bool:
        """Whether listen(2) was called."""
        return self.state is State.LISTENING

    # State ----------------------------------------------------------------------------------------

    def poll(self) -> int:
        """Gives what ``unix_poll`` gives."""
        mask = 0
        if self.error is not None:
            mask |= POLLERR
        if self.shutdown_mask == sockets.SHUTDOWN_MASK:
            mask |= POLLHUP
        if self.shutdown_mask & sockets.RCV_SHUTDOWN:
            mask |= POLLRDHUP | READABLE
        if self.has_input:
            mask |= READABLE
        if self.state is State.CLOSED and self.kind != socket_h.SOCK_DGRAM:
            mask |= POLLHUP
        if self.is_writable:
            mask |= WRITABLE | POLLWRBAND
        return mask

    @property
    def has_input(self) -> bool:
        """Whether a message (or, for a listener, a connection) waits."""
        return bool(self.received)

    @property
    def is_writable(self) -> bool:
        """Whether poll(2) says so; a send that does not fit blocks until it is."""
        return self.state is not State.LISTENING and self.charged * 4 <= self.options.send_buffer

    def shutdown(self, how: int) -> None:
        """Closes directions here and, for connections, the matching ones of the peer."""
        mode = how + 1
        self.shutdown_mask |= mode
        peer = self.peer
        if peer is not None and self.kind != socket_h.SOCK_DGRAM:
            peer.shutdown_mask |= (mode & sockets.RCV_SHUTDOWN) << 1 | (mode & sockets.SEND_SHUTDOWN) >> 1
            peer.queue.notify(sockets.EVERYTHING)
        self.queue.notify(sockets.EVERYTHING)
        self.room_queue.notify(sockets.EVERYTHING)

    @property
    def held_bytes(self) -> int:
        """What waits to be received."""
        return sum(len(message.data) for message in self.received)

    async def release(self) -> None:
        """Closes: frees the name, tells the peer, drops what was not read."""
        self.is_dead = True
        unix = self.kernel.unix
        unix.sockets.pop(self, None)
        unix.give_up(self)
        if self.bound_inode is not None and self.bound_inode.bound_socket is self:
            self.bound_inode.bound_socket = None
        self.bound_inode = None
        self.shutdown_mask = sockets.SHUTDOWN_MASK
        self.leave_peer()
        self.state = State.CLOSED
        self.room_queue.notify(sockets.EVERYTHING)
        await self.discard_received()
        await unix_collect.collect(unix)

    def leave_peer(self) -> None:
        """Tells the peer, if any, that this end is gone."""
        raise NotImplementedError

    def embryos(self) -> list[UnixSocket]:
        """Gives the connections that wait to be accepted."""
        return []

    async def discard_received(self) -> None:
        """Throws unread messages away, closing the files in them."""
        while self.received:
            message = self.received.popleft()
            message.sender.uncharge(message.charge)
            await unix_collect.discard(self.kernel.unix, message.files)

    # Messages -------------------------------------------------------------------------------------

    @property
    def wants_sender(self) -> bool:
        """Whether a message sent now carries the sender's credentials, unix_maybe_add_creds()."""
        peer = self.peer
        # A peer nobody has accepted yet may ask for credentials later.
        return self.passes_credentials or peer is None or peer.passes_credentials or not peer.references

    def make_message(self, receiver: UnixSocket, data: bytes, ancillary: Ancillary | None) -> Message:
        """Makes a message for a receiver; its files are in flight from now on."""
        credentials = ancillary.credentials if ancillary is not None else None
        files: list[File] = []
        if credentials is None and (self.passes_credentials or receiver.passes_credentials or not receiver.references):
            # A receiver nobody has accepted yet may ask for credentials later, unix_maybe_add_creds().
            sender = ancillary.sender if ancillary is not None else None
            credentials = sender or self.creator.ucred
        if ancillary is not None and ancillary.files:
            files, ancillary.files = ancillary.files, []
            unix_collect.take_off(self.kernel.unix, files)
        return Message(self, data, credentials or NOBODY, files)

    def deliver(self, message: Message) -> None:
        """Puts a message into the receive queue at its sender's expense."""
        message.sender.charged += message.charge
        self.received.append(message)
        self.queue.notify(READABLE)

    def uncharge(self, charge: int) -> None:
        """Gives the sender room back once a message of its was read."""
        self.charged -= charge
        if self.is_writable:
            self.queue.notify(WRITABLE | POLLWRBAND)

    def ancillary_for(self, credentials: Ucred, files: list[File]) -> Ancillary | None:
        """Gives what a receive call gets beside the data."""
        if not files and not self.passes_credentials:
            return None
        return Ancillary(files, credentials if self.passes_credentials else None)

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Receives for read(2), closing files that came along."""
        if offset is not None:
            raise errnos.ESPIPE("sockets have no offsets")
        if not count:
            return b""
        received = self.try_recvmsg(count)
        if received.ancillary is not None and received.ancillary.files:
            unix_collect.drop_soon(self.kernel, received.ancillary)
        return received.data

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Sends for write(2)."""
        if offset is not None:
            raise errnos.ESPIPE("sockets have no offsets")
        if not self.wants_sender:
            return self.try_sendmsg(data)
        return self.try_sendmsg(data, None, Ancillary(sender=self._writer()))

    def _writer(self) -> Ucred:
        """Gives who writes: a write(2) tells a file nothing of its thread, but runs in its task."""
        task = asyncio.current_task()
        for thread in self.kernel.threads.values():
            if thread.task is task:
                return identity_of(thread).ucred
        return self.creator.ucred

    def unread(self, data: bytes) -> None:
        """Puts back what could not be copied to the reader; a lost end of a datagram stays lost."""
        if self.is_stream and data:
            message = Message(self, data, NOBODY, [])
            message.charge = 0
            self.received.appendleft(message)

    # Options --------------------------------------------------------------------------------------

    def set_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """Sets an option."""
        super().set_option(caller, level, name, value)
        self.passes_credentials = socket_h.SO_PASSCRED in self.options.flags

    def get_option(self, level: int, name: int, length: int) -> bytes:
        """Gives an option, those about the peer included."""
        if level == socket_h.SOL_SOCKET and name == socket_h.SO_PEERCRED:
            identity = self.peer_identity
            ucred = identity.ucred if identity is not None else Ucred(0, 0xFFFFFFFF, 0xFFFFFFFF)
            return socket_h.UCRED.pack(*ucred)
        if level == socket_h.SOL_SOCKET and name == socket_h.SO_PEERGROUPS:
            if self.peer_identity is None:
                raise errnos.ENODATA("no peer")
            return b"".join(group.to_bytes(4, "little") for group in self.peer_identity.groups)
        return super().get_option(level, name, length)

    def ioctl(self, thread: object, request: int, argument: int) -> int:
        """Tells how much is unread (SIOCINQ) and how much of ours the peer has not read (SIOCOUTQ)."""
        assert isinstance(thread, MemoryHolder)
        if request == socket_h.SIOCINQ:
            thread.memory.write_i32(argument, self.count_unread())
            return 0
        if request == socket_h.SIOCOUTQ:
            thread.memory.write_i32(argument, self.charged)
            return 0
        return super().ioctl(thread, request, argument)

    def count_unread(self) -> int:
        """Gives the bytes one can read: of the first message, or of all of a connection."""
        if self.state is State.LISTENING:
            raise errnos.EINVAL("a listener has no data")
        if self.kind == socket_h.SOCK_DGRAM:
            return len(self.received[0].data) if self.received else 0
        return sum(len(message.data) - message.start for message in self.received)


def parse_name(address: bytes, may_be_empty: bool = False) -> bytes:
    """Gives the name in a ``sockaddr_un``: a path up to its NUL, or a whole abstract name."""
    if len(address) < un_h.SUN_PATH_OFFSET or len(address) > un_h.SOCKADDR_UN_SIZE:
        raise errnos.EINVAL(f"{len(address)} bytes are no unix address")
    if address[: un_h.SUN_PATH_OFFSET] != _FAMILY:
        raise errnos.EINVAL("not a unix address")
    name = address[un_h.SUN_PATH_OFFSET :]
    if not name:
        if may_be_empty:
            return b""
        raise errnos.EINVAL("empty unix address")
    return name if name[0] == 0 else name.partition(b"\0")[0]
