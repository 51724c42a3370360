"""Which address families a kernel has: AF_UNIX always, the Internet's by ``Kernel.network``.

``host``: AF_INET, AF_INET6 and (for questions) AF_NETLINK are passed through to host sockets. ``none``: there is
no Internet family at all, and socket(2) says EAFNOSUPPORT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import socket_h
from asyncsentry.net.ancillary import Caller, identity_of
from asyncsentry.net.hostcalls import HostCalls
from asyncsentry.net.hostinet import HostFamily
from asyncsentry.net.hostnetlink import HostNetlinkFamily
from asyncsentry.net.hostpoll import HostPoller
from asyncsentry.net.sockets import Socket
from asyncsentry.net.unix import State
from asyncsentry.net.unix_connected import ConnectedUnixSocket
from asyncsentry.net.unix_datagram import UnixDatagramSocket, UnixSequencedSocket
from asyncsentry.net.unix_stream import UnixStreamSocket

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel

_TYPES: dict[int, type[UnixStreamSocket | UnixDatagramSocket | UnixSequencedSocket]] = {
    socket_h.SOCK_STREAM: UnixStreamSocket,
    socket_h.SOCK_DGRAM: UnixDatagramSocket,
    socket_h.SOCK_SEQPACKET: UnixSequencedSocket,
}


class UnixFamily:
    """Makes AF_UNIX sockets."""

    def create(self, kernel: Kernel, caller: Caller, kind: int, protocol: int, flags: int) -> Socket:
        """Makes an unnamed socket; SOCK_RAW is another word for SOCK_DGRAM, as in Linux."""
        if protocol not in (0, socket_h.AF_UNIX):
            raise errnos.EPROTONOSUPPORT(f"no protocol {protocol}")
        if kind == socket_h.SOCK_RAW:
            kind = socket_h.SOCK_DGRAM
        if kind not in _TYPES:
            raise errnos.ESOCKTNOSUPPORT(f"no socket type {kind}")
        return _TYPES[kind](kernel, kind, flags, identity_of(caller))

    def pair(self, kernel: Kernel, caller: Caller, kind: int, protocol: int, flags: int) -> tuple[Socket, Socket]:
        """Makes two sockets that are each other's peers."""
        one = self.create(kernel, caller, kind, protocol, flags)
        two = self.create(kernel, caller, kind, protocol, flags)
        for socket, peer in ((one, two), (two, one)):
            assert isinstance(socket, UnixDatagramSocket | ConnectedUnixSocket)
            assert isinstance(peer, UnixDatagramSocket | ConnectedUnixSocket)
            if isinstance(socket, UnixDatagramSocket) and isinstance(peer, UnixDatagramSocket):
                socket.join(peer)
            socket.peer = peer
            socket.peer_identity = peer.creator
            socket.state = State.ESTABLISHED
        return one, two


def install_families(kernel: Kernel) -> None:
    """Fills ``kernel.socket_families``; called when the first socket is made."""
    kernel.socket_families.setdefault(socket_h.AF_UNIX, UnixFamily())
    if kernel.network == "host":
        poller, calls = HostPoller(), HostCalls()
        for domain in (socket_h.AF_INET, socket_h.AF_INET6):
            kernel.socket_families.setdefault(domain, HostFamily(domain, poller, calls))
        kernel.socket_families.setdefault(socket_h.AF_NETLINK, HostNetlinkFamily(poller, calls))
