"""Connections of AF_UNIX stream and seqpacket sockets: listen, connect, accept. See unix(7), listen(2)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.net import sockets
from asyncsentry.net.ancillary import Caller, PeerIdentity, identity_of
from asyncsentry.net.unix import State, UnixSocket
from asyncsentry.waiter import READABLE, WRITABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel


class ConnectedUnixSocket(UnixSocket):
    """A socket that has a peer, or listens for some."""

    def __init__(self, kernel: Kernel, kind: int, flags: int, creator: PeerIdentity) -> None:
        super().__init__(kernel, kind, flags, creator)
        self.backlog = 0
        self.pending: deque[UnixSocket] = deque()
        """A listener's connections nobody has accepted yet."""

    @property
    def has_input(self) -> bool:
        """Whether a message or a connection waits."""
        return bool(self.received or self.pending)

    def embryos(self) -> list[UnixSocket]:
        """Gives the connections that wait to be accepted."""
        return list(self.pending)

    def listen(self, backlog: int, caller: Caller) -> None:
        """Becomes a listener; its maker is who peers see as SO_PEERCRED."""
        if not self.name or self.state is State.ESTABLISHED:
            raise errnos.EINVAL("cannot listen: not bound, or connected")
        self.backlog = min(backlog & 0xFFFFFFFF, self.kernel.sysctls.integer("net.core.somaxconn"))
        self.state = State.LISTENING
        self.peer_identity = identity_of(caller)
        self.room_queue.notify(WRITABLE)

    def try_connect(self, target: object, caller: Caller) -> None:
        """Connects to a listener, waiting while its backlog is full."""
        assert isinstance(target, ConnectedUnixSocket)
        if target.state is not State.LISTENING or target.shutdown_mask & sockets.RCV_SHUTDOWN:
            raise errnos.ECONNREFUSED("nobody listens")
        if len(target.pending) > target.backlog:
            raise errnos.WouldBlock
        if self.state is not State.CLOSED:
            raise errnos.EISCONN("connected") if self.state is State.ESTABLISHED else errnos.EINVAL("listening")
        if self.passes_credentials:
            self.bind_automatically()
        other = type(self)(self.kernel, self.kind, 0, target.creator)
        other.options = target.options.copy()
        other.passes_credentials = target.passes_credentials
        other.name = target.name
        other.state = self.state = State.ESTABLISHED
        other.peer, self.peer = self, other
        other.peer_identity, self.peer_identity = identity_of(caller), target.peer_identity
        target.pending.append(other)
        target.queue.notify(READABLE)
        self.queue.notify(sockets.EVERYTHING)

    def connect_wait(self, target: object) -> tuple[WaitQueue, int]:
        """Waits for room in the listener's backlog."""
        assert isinstance(target, UnixSocket)
        return target.room_queue, WRITABLE

    def connect_unfinished(self) -> errnos.LinuxError:
        """Says EAGAIN when the backlog is full; there is nothing in progress then."""
        return errnos.EAGAIN("the backlog is full")

    def try_accept(self, flags: int) -> sockets.Socket:
        """Takes the oldest connection."""
        if self.state is not State.LISTENING:
            raise errnos.EINVAL("not listening")
        if not self.pending:
            if self.shutdown_mask & sockets.RCV_SHUTDOWN:
                raise errnos.EINVAL("shut down")
            raise errnos.WouldBlock
        accepted = self.pending.popleft()
        accepted.flags |= flags
        self.room_queue.notify(WRITABLE)
        return accepted

    def disconnect(self) -> None:
        """Refuses: an AF_UNSPEC address is no unix address here."""
        raise errnos.EINVAL("a connection cannot be dissolved")

    def leave_peer(self) -> None:
        """Hangs up; the peer is told ECONNRESET if it sent something we never read."""
        peer = self.peer
        if peer is None:
            return
        self.peer = None
        if peer.is_dead:
            return
        peer.shutdown_mask = sockets.SHUTDOWN_MASK
        if self.received:
            peer.error = errnos.ECONNRESET
        peer.queue.notify(sockets.EVERYTHING)

    async def release(self) -> None:
        """Closes, and with a listener the connections nobody accepted."""
        while self.pending:
            embryo = self.pending.popleft()
            peer = embryo.peer
            await embryo.release()
            if peer is not None and not peer.is_dead:
                peer.error = errnos.ECONNRESET
                peer.queue.notify(sockets.EVERYTHING)
        await super().release()
