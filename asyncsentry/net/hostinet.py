"""``--network=host``: AF_INET and AF_INET6 sockets passed through to non-blocking host sockets of the sentry.

Every try is one host call; the host's EAGAIN becomes ``WouldBlock`` and its errors the guest's own here, at this
border. Timeouts, O_NONBLOCK and restarts stay with the syscall loops, so the host socket never blocks the
sentry. Only listed options, flags and control messages pass (``hostoptions.py``). See ip(7), tcp(7), udp(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket as host
import threading
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import in_h, socket_h
from asyncsentry.abi.capability_h import CAP_NET_ADMIN, CAP_NET_BIND_SERVICE
from asyncsentry.net import hostoptions
from asyncsentry.net.ancillary import (
    Ancillary,
    Caller,
    ControlMessage,
    PeerIdentity,
    Received,
    identity_of,
    join_control,
    split_control,
)
from asyncsentry.net.hostcalls import DATA_SIZE, HostCalls
from asyncsentry.net.hostpoll import HostPoller
from asyncsentry.net.interface_ioctls import interface_ioctl
from asyncsentry.net.ioctls import Memory, MemoryHolder
from asyncsentry.net.sockets import EVERYTHING, Socket
from asyncsentry.waiter import (
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDHUP,
    POLLWRBAND,
    READABLE,
    WRITABLE,
    Waiter,
    WaitQueue,
)

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel

_ALL_EVENTS = READABLE | WRITABLE | POLLPRI | POLLRDBAND | POLLWRBAND | POLLRDHUP
_UNPRIVILEGED_PORT_MIN = 1024
_OPTION_SIZE_MAX = 1024
_PROTOCOLS = {
    (socket_h.SOCK_STREAM, 0): in_h.IPPROTO_TCP,
    (socket_h.SOCK_STREAM, in_h.IPPROTO_TCP): in_h.IPPROTO_TCP,
    (socket_h.SOCK_DGRAM, 0): in_h.IPPROTO_UDP,
    (socket_h.SOCK_DGRAM, in_h.IPPROTO_UDP): in_h.IPPROTO_UDP,
    (socket_h.SOCK_DGRAM, in_h.IPPROTO_UDPLITE): in_h.IPPROTO_UDPLITE,
    (socket_h.SOCK_DGRAM, in_h.IPPROTO_ICMP): in_h.IPPROTO_ICMP,
    (socket_h.SOCK_DGRAM, in_h.IPPROTO_ICMPV6): in_h.IPPROTO_ICMPV6,
}
_FORCED = {socket_h.SO_SNDBUFFORCE: socket_h.SO_SNDBUF, socket_h.SO_RCVBUFFORCE: socket_h.SO_RCVBUF}
_OWN_OPTIONS = frozenset((socket_h.SO_RCVTIMEO, socket_h.SO_RCVTIMEO_NEW, socket_h.SO_SNDTIMEO,
                          socket_h.SO_SNDTIMEO_NEW, socket_h.SO_DEBUG, socket_h.SO_PASSCRED, socket_h.SO_PASSSEC,
                          socket_h.SO_MARK))  # fmt: skip
"""SOL_SOCKET options kept here: the host socket has no timeouts, and may not be given marks."""


class HostWaitQueue(WaitQueue):
    """A queue that has its socket watched once somebody waits."""

    __slots__ = ("_socket",)

    def __init__(self, socket: HostSocket) -> None:
        super().__init__()
        self._socket = socket

    def add(self, waiter: Waiter) -> None:
        """Adds a waiter and makes sure host events reach it."""
        super().add(waiter)
        self._socket.watch()


class HostSocket(Socket):
    """One host socket, owned by this object."""

    def __init__(self, kernel: Kernel, family: HostFamily, inner: host.socket, flags: int,
                 creator: PeerIdentity) -> None:
        super().__init__(kernel, inner.family, inner.type, inner.proto, flags, creator)
        try:
            family.poller.join()
        except errnos.LinuxError:
            inner.close()
            raise
        inner.setblocking(False)
        self.inner = inner
        self.family = family
        self.queue = HostWaitQueue(self)
        self._is_connecting = False
        self._was_connecting = False
        self._lingers = False
        self._poll = select.poll()
        self._poll.register(inner, _ALL_EVENTS)

    # Readiness ------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Begins to hear of host events."""
        self.family.poller.watch(self.inner.fileno(), self)

    def host_event(self, mask: int) -> None:
        """Passes an event of the host on."""
        self.queue.notify(mask | (READABLE if mask & POLLIN else 0) | (WRITABLE if mask & POLLOUT else 0))

    def poll(self) -> int:
        """Asks the host."""
        events = self._poll.poll(0)
        return events[0][1] if events else 0

    async def release(self) -> None:
        """Closes the host socket; close(2) of one that lingers waits, the end of a program does not, as in Linux."""
        self.family.poller.leave(self.inner.fileno())
        self.queue.notify(EVERYTHING)
        if self._lingers and self._is_closed_by_program():
            await _close_in_thread(self.inner)
            return
        if self._lingers:
            self.inner.setsockopt(host.SOL_SOCKET, host.SO_LINGER, socket_h.LINGER.pack(0, 0))
        self.inner.close()

    def _is_closed_by_program(self) -> bool:
        """Whether this runs in a guest thread that lives on: files are not told who closes them."""
        task = asyncio.current_task()
        return any(thread.task is task and not thread.is_dying for thread in self.kernel.threads.values())

    # Names and connections ------------------------------------------------------------------------

    async def bind(self, caller: Caller, address: bytes) -> None:
        """Binds on the host; ports below 1024 need CAP_NET_BIND_SERVICE in the guest, too."""
        port = int.from_bytes(address[2:4], "big")
        if 0 < port < _UNPRIVILEGED_PORT_MIN and not caller.credentials.has(CAP_NET_BIND_SERVICE):
            raise errnos.EACCES(f"port {port} is privileged")
        self.family.calls.bind(self.inner.fileno(), address)

    def local_name(self) -> bytes:
        """Asks the host."""
        return self.family.calls.local_name(self.inner.fileno())

    def peer_name(self) -> bytes:
        """Asks the host."""
        return self.family.calls.peer_name(self.inner.fileno())

    def listen(self, backlog: int, caller: Caller) -> None:
        """Listens on the host."""
        try:
            self.inner.listen(min(max(backlog, 0), socket_h.SOMAXCONN))
        except OSError as error:
            raise errnos.from_host(error) from None
        self.queue.notify(EVERYTHING)

    @property
    def is_listening(self) -> bool:
        """Asks the host."""
        return bool(self.inner.getsockopt(host.SOL_SOCKET, host.SO_ACCEPTCONN))

    def try_accept(self, flags: int) -> Socket:
        """Accepts on the host; the connection inherits our timeouts."""
        try:
            fd, _ = self.inner._accept()  # type: ignore[attr-defined]  # without the object accept() makes
        except BlockingIOError:
            raise errnos.WouldBlock from None
        except OSError as error:
            raise errnos.from_host(error) from None
        inner = host.socket(self.inner.family, self.inner.type, self.inner.proto, fileno=fd)
        accepted = HostSocket(self.kernel, self.family, inner, flags, self.creator)
        accepted.options = self.options.copy()
        accepted._lingers = self._lingers
        return accepted

    def try_connect(self, target: object, caller: Caller) -> None:
        """Connects on the host; asked again, the host tells how an earlier try has ended."""
        assert isinstance(target, bytes)
        was_connecting = self._is_connecting
        self._is_connecting = False
        try:
            self.family.calls.connect(self.inner.fileno(), target)
        except errnos.WouldBlock:
            self._is_connecting = True
            self._was_connecting = was_connecting
            raise

    def connect_unfinished(self) -> errnos.LinuxError:
        """Says EINPROGRESS the first time and EALREADY from then on."""
        return errnos.EALREADY("connecting") if self._was_connecting else errnos.EINPROGRESS("connecting")

    def disconnect(self) -> None:
        """Forgets the peer on the host."""
        self.family.calls.connect(self.inner.fileno(), bytes(in_h.SOCKADDR_IN_SIZE))
        self._is_connecting = False

    def shutdown(self, how: int) -> None:
        """Shuts the host socket down."""
        try:
            self.inner.shutdown(how)
        except OSError as error:
            raise errnos.from_host(error) from None

    # Messages -------------------------------------------------------------------------------------

    @property
    def message_size_max(self) -> int:
        """More than any datagram: the host judges."""
        return DATA_SIZE

    def try_sendmsg(self, data: bytes, target: object = None, ancillary: Ancillary | None = None,
                    flags: int = 0) -> int:
        """Sends on the host."""
        if flags & socket_h.MSG_FASTOPEN:
            raise errnos.EOPNOTSUPP("no TCP Fast Open")
        control = b""
        if ancillary is not None and ancillary.others:
            control = _sendable(ancillary.others)
        name = target if isinstance(target, bytes) else b""
        return self.family.calls.sendmsg(self.inner.fileno(), data, name, control, flags & hostoptions.SEND_FLAGS)

    def try_recvmsg(self, count: int, flags: int = 0) -> Received:
        """Receives on the host. MSG_TRUNC on a stream throws the bytes away here, not there."""
        host_flags = flags & hostoptions.RECEIVE_FLAGS | (0 if self.is_stream else socket_h.MSG_TRUNC)
        raw = self.family.calls.recvmsg(self.inner.fileno(), count, host_flags)
        others = [message for message in split_control(raw.control) if message[:2] in hostoptions.RECEIVABLE_CONTROL]
        data = b"" if self.is_stream and flags & socket_h.MSG_TRUNC else raw.data
        is_end = not raw.data or bool(flags & (socket_h.MSG_OOB | socket_h.MSG_ERRQUEUE | socket_h.MSG_TRUNC))
        return Received(data, raw.name, Ancillary(others=others) if others else None, raw.flags, raw.length, is_end)

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Receives for read(2)."""
        if offset is not None:
            raise errnos.ESPIPE("sockets have no offsets")
        try:
            return self.inner.recv(min(count, DATA_SIZE)) if count else b""
        except BlockingIOError:
            raise errnos.WouldBlock from None
        except OSError as error:
            raise errnos.from_host(error) from None

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Sends for write(2)."""
        if offset is not None:
            raise errnos.ESPIPE("sockets have no offsets")
        try:
            return self.inner.send(data, host.MSG_NOSIGNAL)
        except BlockingIOError:
            raise errnos.WouldBlock from None
        except OSError as error:
            raise errnos.from_host(error) from None

    # Options --------------------------------------------------------------------------------------

    def passes(self, level: int, name: int) -> bool:
        """Whether setsockopt(2) passes an option on."""
        return (level, name) in hostoptions.SETTABLE

    def set_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """Sets a listed option on the host."""
        if level == socket_h.SOL_SOCKET and name in _OWN_OPTIONS:
            self.options.set(caller, name, value)
            return
        if level == socket_h.SOL_SOCKET and name in _FORCED:
            if not caller.credentials.has(CAP_NET_ADMIN):
                raise errnos.EPERM("forcing a buffer size needs CAP_NET_ADMIN")
            name = _FORCED[name]
        if not self.passes(level, name):
            raise errnos.ENOPROTOOPT(f"option {name} of level {level} does not pass")
        try:
            self.inner.setsockopt(level, name, value)
        except OSError as error:
            raise errnos.from_host(error) from None
        if level == socket_h.SOL_SOCKET and name == socket_h.SO_RCVLOWAT:
            self.options.set(caller, name, value)  # the receive loop must wait for as much, too
        if level == socket_h.SOL_SOCKET and name == socket_h.SO_LINGER:
            self._lingers = all(socket_h.LINGER.unpack_from(value))

    def get_option(self, level: int, name: int, length: int) -> bytes:
        """Gets a listed option from the host."""
        if level == socket_h.SOL_SOCKET and (name in _OWN_OPTIONS or (name == socket_h.SO_ERROR and self.error)):
            return super().get_option(level, name, length)
        if level == socket_h.SOL_SOCKET and name in (socket_h.SO_TYPE, socket_h.SO_DOMAIN):
            return super().get_option(level, name, length)
        if not self.passes(level, name) and (level, name) not in hostoptions.GETTABLE:
            raise errnos.ENOPROTOOPT(f"option {name} of level {level} does not pass")
        if not length:
            return b""
        try:
            value = self.inner.getsockopt(level, name, min(length, _OPTION_SIZE_MAX))
        except OSError as error:
            raise errnos.from_host(error) from None
        if level == socket_h.SOL_SOCKET and name == socket_h.SO_ERROR:
            self._is_connecting = False
        return value

    def ioctl(self, thread: object, request: int, argument: int) -> int:
        """Does SIOCINQ, SIOCOUTQ, SIOCATMARK, and questions about interfaces."""
        assert isinstance(thread, MemoryHolder)
        if request not in (socket_h.SIOCINQ, socket_h.SIOCOUTQ, socket_h.SIOCATMARK):
            return super().ioctl(thread, request, argument)
        try:
            answer = fcntl.ioctl(self.inner.fileno(), request, bytes(4))
        except OSError as error:
            raise errnos.from_host(error) from None
        thread.memory.write(argument, answer)
        return 0


async def _close_in_thread(inner: host.socket) -> None:
    """Closes a socket that lingers.

    Not in the loop's own threads: guests say how long it takes, and the end of the loop waits for those.
    """
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[None] = loop.create_future()
    threading.Thread(target=_close, args=(inner, loop, closed), daemon=True).start()
    await closed


def _close(inner: host.socket, loop: asyncio.AbstractEventLoop, closed: asyncio.Future[None]) -> None:
    with contextlib.suppress(OSError):
        inner.close()
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(_set_closed, closed)


def _set_closed(closed: asyncio.Future[None]) -> None:
    if not closed.done():
        closed.set_result(None)


def _sendable(messages: list[ControlMessage]) -> bytes:
    for message in messages:
        if message[:2] not in hostoptions.SENDABLE_CONTROL:
            raise errnos.EINVAL(f"control message {message.type} of level {message.level} does not pass")
    return join_control(messages)


class HostFamily:
    """Makes host sockets of one Internet family; both families share the poller and the call buffers."""

    def __init__(self, domain: int, poller: HostPoller, calls: HostCalls) -> None:
        self.domain = domain
        self.poller = poller
        self.calls = calls

    def create(self, kernel: Kernel, caller: Caller, kind: int, protocol: int, flags: int) -> Socket:
        """Makes a stream or datagram socket; raw ones are refused as without CAP_NET_RAW."""
        if kind in (socket_h.SOCK_RAW, socket_h.SOCK_PACKET):
            raise errnos.EPERM("raw sockets do not pass")
        if kind not in (socket_h.SOCK_STREAM, socket_h.SOCK_DGRAM):
            raise errnos.ESOCKTNOSUPPORT(f"no socket type {kind}")
        if (kind, protocol) not in _PROTOCOLS:
            raise errnos.EPROTONOSUPPORT(f"no protocol {protocol}")
        try:
            inner = host.socket(self.domain, kind, _PROTOCOLS[kind, protocol])
        except OSError as error:
            raise errnos.from_host(error) from None
        return HostSocket(kernel, self, inner, flags, identity_of(caller))

    def ask_interfaces(self, memory: Memory, request: int, argument: int) -> int:
        """Asks the host about its interfaces."""
        try:
            asking = host.socket(host.AF_INET, host.SOCK_DGRAM)
        except OSError as error:
            raise errnos.from_host(error) from None
        with asking:
            return interface_ioctl(asking.fileno(), memory, request, argument)

    def pair(self, kernel: Kernel, caller: Caller, kind: int, protocol: int, flags: int) -> tuple[Socket, Socket]:
        """Refuses: there are no pairs of Internet sockets."""
        raise errnos.EOPNOTSUPP("no socket pairs in this family")
