"""AF_UNIX datagrams and sequenced packets: whole messages. After ``unix_dgram_sendmsg`` and kin, unix(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import socket_h
from asyncsentry.net import sockets, unix_collect
from asyncsentry.net.ancillary import Ancillary, Caller, PeerIdentity, Received
from asyncsentry.net.unix import State, UnixSocket
from asyncsentry.net.unix_connected import ConnectedUnixSocket
from asyncsentry.waiter import READABLE, WRITABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel


class MessageSocket(UnixSocket):
    """What datagram and seqpacket sockets share: sending and receiving whole messages."""

    def __init__(self, kernel: Kernel, kind: int, flags: int, creator: PeerIdentity) -> None:
        super().__init__(kernel, kind, flags, creator)
        self.queue_length_max = kernel.sysctls.integer("net.unix.max_dgram_qlen")
        """How many messages it holds from senders it is not connected to."""

    def may_be_sent_to_by(self, sender: UnixSocket) -> bool:
        """Whether it is connected to nobody, or to the sender."""
        return self.peer is None or self.peer is sender

    def is_full_for(self, sender: UnixSocket) -> bool:
        """Whether the sender must wait; those this socket is connected to are limited by their buffers alone."""
        return self.peer is not sender and self is not sender and len(self.received) > self.queue_length_max

    def send_wait(self, target: object) -> tuple[WaitQueue, int]:
        """Waits for the receiver if it is what is full, for the own buffer otherwise."""
        receiver = target if target is not None else self.peer
        if isinstance(receiver, MessageSocket) and receiver.is_full_for(self):
            return receiver.room_queue, WRITABLE
        return self.queue, WRITABLE

    @property
    def is_writable(self) -> bool:
        """Whether there is room here and at the peer."""
        peer = self.peer
        if isinstance(peer, MessageSocket) and peer.is_full_for(self):
            return False
        return super().is_writable

    def send_message(self, receiver: UnixSocket | None, data: bytes, ancillary: Ancillary | None) -> int:
        """Sends one message."""
        if receiver is None:
            raise errnos.ENOTCONN("not connected, and no address given")
        if self.passes_credentials:
            self.bind_automatically()
        if len(data) > self.message_size_max:
            raise errnos.EMSGSIZE(f"{len(data)} bytes do not fit the send buffer")
        self.take_error()
        if self.shutdown_mask & sockets.SEND_SHUTDOWN:
            raise errnos.EPIPE("shut down for sending")
        if self.charged >= self.options.send_buffer:
            raise errnos.WouldBlock
        assert isinstance(receiver, MessageSocket)
        if not receiver.may_be_sent_to_by(self):
            raise errnos.EPERM("the receiver is connected to another")
        if receiver.is_dead:
            raise self.peer_is_gone(receiver)
        if receiver.shutdown_mask & sockets.RCV_SHUTDOWN:
            raise errnos.EPIPE("the receiver reads no more")
        if receiver.is_full_for(self):
            raise errnos.WouldBlock
        receiver.deliver(self.make_message(receiver, data, ancillary))
        return len(data)

    def peer_is_gone(self, receiver: UnixSocket) -> errnos.LinuxError:
        """Gives what a send to a closed socket says."""
        return errnos.EPIPE("the peer is closed")

    @property
    def message_size_max(self) -> int:
        """Less than the send buffer by what Linux's own header would take."""
        return self.options.send_buffer - 32

    def try_recvmsg(self, count: int, flags: int = 0) -> Received:
        """Receives one message, cutting off what does not fit."""
        if flags & socket_h.MSG_OOB:
            raise errnos.EOPNOTSUPP("no urgent data")
        self.take_error()
        if not self.received:
            return self.receive_nothing(flags)
        message = self.received[0]
        if flags & socket_h.MSG_PEEK:
            files = list(message.files)
            for file in files:
                file.references += 1
        else:
            files = unix_collect.land(self.kernel.unix, message.files)
            self.received.popleft()
            message.sender.uncharge(message.charge)
            self.announce_room()
        data = message.data
        truncated = socket_h.MSG_TRUNC if len(data) > count else 0
        address = message.sender.address if message.sender.name else b""
        return Received(data[:count], address, self.ancillary_for(message.credentials, files), truncated, len(data))

    def receive_nothing(self, flags: int) -> Received:
        """Says what an empty queue means."""
        raise NotImplementedError

    def announce_room(self) -> None:
        """Tells senders that one more message fits."""
        self.room_queue.notify(WRITABLE)


class UnixDatagramSocket(MessageSocket):
    """A socket for single messages, connected or not."""

    def __init__(self, kernel: Kernel, kind: int, flags: int, creator: PeerIdentity) -> None:
        super().__init__(kernel, kind, flags, creator)
        self.senders: dict[UnixDatagramSocket, None] = {}
        """Who is connected to this socket, to be told of room."""

    def try_connect(self, target: object, caller: Caller) -> None:
        """Sets where messages go and from whom they are taken."""
        assert isinstance(target, UnixDatagramSocket)
        if not target.may_be_sent_to_by(self):
            raise errnos.EPERM("the receiver is connected to another")
        if self.passes_credentials:
            self.bind_automatically()
        self._set_peer(target)
        self.state = State.ESTABLISHED
        self.queue.notify(WRITABLE)

    def disconnect(self) -> None:
        """Goes back to having no peer."""
        self._set_peer(None)
        self.state = State.CLOSED

    def join(self, peer: UnixDatagramSocket) -> None:
        """Becomes one half of a socketpair(2)."""
        self.peer = peer
        peer.senders[self] = None

    def _set_peer(self, peer: UnixDatagramSocket | None) -> None:
        old = self.peer
        if old is peer:
            return
        if isinstance(old, UnixDatagramSocket):
            old.senders.pop(self, None)
            self._forget_messages()
            if not old.is_dead and old.peer is self:
                old.error = errnos.ECONNRESET
                old.queue.notify(sockets.EVERYTHING)
        self.peer = peer
        if peer is not None:
            peer.senders[self] = None

    def _forget_messages(self) -> None:
        """Loses what was received over a connection that is dissolved."""
        while self.received:
            message = self.received.popleft()
            message.sender.uncharge(message.charge)
            if message.files:
                files = unix_collect.land(self.kernel.unix, message.files)
                unix_collect.drop_soon(self.kernel, Ancillary(files))
        self.announce_room()

    def try_sendmsg(self, data: bytes, target: object = None, ancillary: Ancillary | None = None,
                    flags: int = 0) -> int:
        """Sends one message to the address given, or to the peer."""
        if flags & socket_h.MSG_OOB:
            raise errnos.EOPNOTSUPP("no urgent data")
        assert target is None or isinstance(target, UnixSocket)
        return self.send_message(target or self.peer, data, ancillary)

    def peer_is_gone(self, receiver: UnixSocket) -> errnos.LinuxError:
        """Forgets a peer that was closed; Linux lets the sender find out by sending."""
        if self.peer is receiver:
            self.disconnect()
        return errnos.ECONNREFUSED("the receiver is closed")

    def receive_nothing(self, flags: int) -> Received:
        """Gives nothing once shut down, but only to a call that would block, as Linux does."""
        if self.shutdown_mask & sockets.RCV_SHUTDOWN and not self.is_nonblocking(flags):
            return Received(b"")
        raise errnos.WouldBlock

    def announce_room(self) -> None:
        """Tells blocked senders, and pollers of sockets connected here, that one more message fits."""
        super().announce_room()
        for sender in self.senders:
            sender.queue.notify(WRITABLE)

    def leave_peer(self) -> None:
        """Just stops counting as a sender of the peer: datagram peers are not told."""
        if isinstance(self.peer, UnixDatagramSocket):
            self.peer.senders.pop(self, None)
        self.peer = None
        for sender in self.senders:
            sender.queue.notify(WRITABLE | READABLE)


class UnixSequencedSocket(MessageSocket, ConnectedUnixSocket):
    """A connection of whole messages."""

    async def find_receiver(self, caller: Caller, address: bytes) -> object:
        """Ignores the address."""
        return None

    def try_sendmsg(self, data: bytes, target: object = None, ancillary: Ancillary | None = None,
                    flags: int = 0) -> int:
        """Sends one message to the peer; an address is ignored."""
        if self.state is not State.ESTABLISHED:
            raise errnos.ENOTCONN("not connected")
        if flags & socket_h.MSG_OOB:
            raise errnos.EOPNOTSUPP("no urgent data")
        return self.send_message(self.peer, data, ancillary)

    def try_recvmsg(self, count: int, flags: int = 0) -> Received:
        """Receives one message of the peer."""
        if self.state is not State.ESTABLISHED:
            raise errnos.ENOTCONN("not connected")
        return super().try_recvmsg(count, flags)

    def receive_nothing(self, flags: int) -> Received:
        """Gives end of file once the peer has shut down."""
        if self.shutdown_mask & sockets.RCV_SHUTDOWN:
            return Received(b"")
        raise errnos.WouldBlock
