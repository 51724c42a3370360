"""Sockets: the base class of every family, and what a family is.

A :class:`Socket` is an open file whose calls are *tries*, as in ``fs/file.py``: they do what can be done
now or raise ``WouldBlock``; ``syscalls/socket_send.py``, ``socket_receive.py`` and ``transfer.py`` hold the loops.
Addresses cross this border as raw ``sockaddr`` bytes. Only what may walk a path is ``async`` (:meth:`Socket.bind`,
:meth:`Socket.find_target`, :meth:`Socket.find_receiver`); the target found is then handed to the tries.
Families (``unix.py``, ``hostinet.py``, …) are registered in ``Kernel.socket_families``. See socket(7).
"""

from __future__ import annotations

import stat as stat_bits
from typing import TYPE_CHECKING, Protocol

from asyncsentry import errnos
from asyncsentry.abi import socket_h as s
from asyncsentry.clock import CLOCK_REALTIME
from asyncsentry.fs.anon import SOCK_FS, AnonInode
from asyncsentry.fs.file import O_NONBLOCK, O_RDWR, File
from asyncsentry.fs.inode import Owner
from asyncsentry.net.ancillary import Ancillary, Caller, PeerIdentity, Received
from asyncsentry.net.interface_ioctls import INTERFACE_REQUESTS, InterfaceSource
from asyncsentry.net.ioctls import MemoryHolder
from asyncsentry.net.options import SocketOptions
from asyncsentry.waiter import WRITABLE, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel

RCV_SHUTDOWN = 1
SEND_SHUTDOWN = 2
SHUTDOWN_MASK = 3
EVERYTHING = 0x3FFF
"""Notified when the state changed so much that every waiter should look again."""
RECEIVE_FLAGS = (
    s.MSG_OOB | s.MSG_PEEK | s.MSG_TRUNC | s.MSG_DONTWAIT | s.MSG_WAITALL | s.MSG_ERRQUEUE | s.MSG_CMSG_CLOEXEC
    | s.MSG_WAITFORONE
)  # fmt: skip


class SocketFamily(Protocol):
    """Makes the sockets of one address family."""

    def create(self, kernel: Kernel, caller: Caller, kind: int, protocol: int, flags: int) -> Socket:
        """Makes a socket of type ``kind`` (SOCK_*) with status flags ``flags`` (O_NONBLOCK)."""

    def pair(self, kernel: Kernel, caller: Caller, kind: int, protocol: int, flags: int) -> tuple[Socket, Socket]:
        """Makes two sockets connected to each other; EOPNOTSUPP where that makes no sense."""


class Socket(File):
    """One end of a communication. The base refuses everything a family does not override."""

    def __init__(self, kernel: Kernel, domain: int, kind: int, protocol: int, flags: int,
                 creator: PeerIdentity) -> None:
        owner = Owner(creator.ucred.uid, creator.ucred.gid)
        mode = stat_bits.S_IFSOCK | 0o777
        inode = AnonInode(SOCK_FS, kernel.allocate_inode(), mode, owner, kernel.clock.now_ns(CLOCK_REALTIME))
        super().__init__(inode, O_RDWR | flags & O_NONBLOCK)
        self.kernel = kernel
        self.domain = domain
        self.kind = kind
        """SOCK_STREAM and kin, without flags."""
        self.raises_sigpipe = kind == s.SOCK_STREAM
        self.protocol = protocol
        self.creator = creator
        self.options = SocketOptions(kernel.sysctls)
        self.error: type[errnos.LinuxError] | None = None
        """The pending error SO_ERROR shows once."""

    # What the syscall loops ask -------------------------------------------------------------------

    @property
    def is_stream(self) -> bool:
        """Whether data has no message boundaries, so that a transfer may end in the middle."""
        return self.kind == s.SOCK_STREAM

    @property
    def wants_sender(self) -> bool:
        """Whether a send must come with an ancillary that says who sends."""
        return False

    @property
    def read_timeout_ns(self) -> int | None:
        """SO_RCVTIMEO, for read(2)."""
        return self.options.receive_timeout_ns

    @property
    def write_timeout_ns(self) -> int | None:
        """SO_SNDTIMEO, for write(2)."""
        return self.options.send_timeout_ns

    @property
    def message_size_max(self) -> int:
        """The largest message one send takes, so that more is never copied from a guest."""
        return self.options.send_buffer

    def is_nonblocking(self, flags: int) -> bool:
        """Whether this call may not block."""
        return bool(self.flags & O_NONBLOCK or flags & s.MSG_DONTWAIT)

    def describe(self) -> str:
        """Gives ``socket:[inode]``."""
        assert self.inode is not None
        return f"socket:[{self.inode.ino}]"

    def take_error(self) -> None:
        """Raises the pending error, if any, and forgets it."""
        error, self.error = self.error, None
        if error is not None:
            raise error("pending error of the socket")

    # Names ----------------------------------------------------------------------------------------

    async def bind(self, caller: Caller, address: bytes) -> None:
        """Gives the socket a name, bind(2)."""
        raise errnos.EOPNOTSUPP("cannot be bound")

    async def find_target(self, caller: Caller, address: bytes) -> object:
        """Finds what an address stands for, to be handed to :meth:`try_connect`."""
        return address

    async def find_receiver(self, caller: Caller, address: bytes) -> object:
        """Finds what an address given with a message stands for, to be handed to :meth:`try_sendmsg`."""
        return await self.find_target(caller, address)

    def local_name(self) -> bytes:
        """Gives its own ``sockaddr``, getsockname(2)."""
        raise errnos.EOPNOTSUPP("has no name")

    def peer_name(self) -> bytes:
        """Gives its peer's ``sockaddr``, getpeername(2); ENOTCONN without a peer."""
        raise errnos.EOPNOTSUPP("has no peer")

    # Connections ----------------------------------------------------------------------------------

    def listen(self, backlog: int, caller: Caller) -> None:
        """Becomes a listener, listen(2)."""
        raise errnos.EOPNOTSUPP("cannot listen")

    def try_accept(self, flags: int) -> Socket:
        """Takes the next connection off a listener's queue."""
        raise errnos.EOPNOTSUPP("cannot accept")

    def try_connect(self, target: object, caller: Caller) -> None:
        """Connects; WouldBlock while it is not done, then wait as :meth:`connect_wait` says and try again."""
        raise errnos.EOPNOTSUPP("cannot connect")

    def connect_wait(self, target: object) -> tuple[WaitQueue, int]:
        """Gives where to wait for a connection to go on."""
        return self.queue, WRITABLE

    def connect_unfinished(self) -> errnos.LinuxError:
        """Gives what a connect(2) that may not block says when it is not done."""
        return errnos.EINPROGRESS("connecting")

    def disconnect(self) -> None:
        """Forgets the peer: connect(2) with AF_UNSPEC."""
        raise errnos.EOPNOTSUPP("cannot be disconnected")

    def shutdown(self, how: int) -> None:
        """Closes one or both directions, shutdown(2)."""
        raise errnos.EOPNOTSUPP("cannot be shut down")

    # Messages -------------------------------------------------------------------------------------

    def try_sendmsg(self, data: bytes, target: object = None, ancillary: Ancillary | None = None,
                    flags: int = 0) -> int:
        """Sends what can be sent now and gives how much; takes the ancillary's files if it succeeds."""
        raise errnos.EOPNOTSUPP("cannot send")

    def send_wait(self, target: object) -> tuple[WaitQueue, int]:
        """Gives where to wait for room to send."""
        return self.queue, WRITABLE

    def try_recvmsg(self, count: int, flags: int = 0) -> Received:
        """Receives up to ``count`` bytes, or one message."""
        raise errnos.EOPNOTSUPP("cannot receive")

    def try_read(self, count: int, offset: int | None = None) -> bytes:
        """Receives for read(2): no flags, and ancillary data is discarded."""
        if offset is not None:
            raise errnos.ESPIPE("sockets have no offsets")
        if not count:
            return b""
        return self.try_recvmsg(count).data

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Sends for write(2)."""
        if offset is not None:
            raise errnos.ESPIPE("sockets have no offsets")
        return self.try_sendmsg(data)

    # Options --------------------------------------------------------------------------------------

    def set_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """Sets an option, setsockopt(2)."""
        if level != s.SOL_SOCKET:
            raise errnos.EOPNOTSUPP(f"no options at level {level}")
        self.options.set(caller, name, value)
        if name in (s.SO_SNDBUF, s.SO_SNDBUFFORCE):
            self.queue.notify(WRITABLE)

    def get_option(self, level: int, name: int, length: int) -> bytes:
        """Gives an option's whole value, getsockopt(2); the caller cuts it to ``length``."""
        if level != s.SOL_SOCKET:
            raise errnos.EOPNOTSUPP(f"no options at level {level}")
        if name == s.SO_ERROR:
            error, self.error = self.error, None
            return _int(error.errno if error is not None else 0)
        if name == s.SO_PEERNAME:
            peer_name = self.peer_name()
            if len(peer_name) < length:
                raise errnos.EINVAL(f"the peer's name is shorter than {length} bytes")
            return peer_name
        if name == s.SO_COOKIE:
            assert self.inode is not None
            return self.inode.ino.to_bytes(8, "little")
        numbers = {s.SO_TYPE: self.kind, s.SO_DOMAIN: self.domain, s.SO_PROTOCOL: self.protocol,
                   s.SO_ACCEPTCONN: int(self.is_listening)}
        return _int(numbers[name]) if name in numbers else self.options.get(name)

    def ioctl(self, thread: object, request: int, argument: int) -> int:
        """Answers questions about interfaces, whatever the family; ENOTTY for what is not known."""
        interfaces = self.kernel.socket_families.get(s.AF_INET)
        if request in INTERFACE_REQUESTS and isinstance(interfaces, InterfaceSource):
            assert isinstance(thread, MemoryHolder)
            return interfaces.ask_interfaces(thread.memory, request, argument)
        raise errnos.ENOTTY(f"no ioctl {request:#x} on this socket")

    @property
    def is_listening(self) -> bool:
        """Whether connections can be accepted from it."""
        return False


def _int(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")
