"""The gofer process: opens its mounts, then answers the sentry's requests until the socket closes.

Started as ``python -I -S -c ... SOCKET PARENT [FLAGS:PATH]...``; flags are ``ro`` or ``rw`` and ``uds``. It
knows no paths but those: what the sentry asks for is always relative to one of them. Bytes that are no message
end the connection, and with it the process. One thread, one request at a time, no event loop:
importing asyncio would double the time it takes to start.
"""

from __future__ import annotations

import _socket
import errno
import os
import resource
import sys

from asyncsentry.fs.gofer import confine, protocol
from asyncsentry.fs.gofer.nodes import Answer, Mount
from asyncsentry.fs.gofer.operations import Operations
from asyncsentry.fs.gofer.protocol import REPLY, U32, Malformed

TYPE_CHECKING = False  # importing typing takes 4 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

_RESERVED_DESCRIPTORS = 128
_NODE_LIMIT = 1 << 20
_SEND_BUFFER = 4 * protocol.MAX_MESSAGE


class Server:
    """Reads messages, performs their requests and sends the answers in batches."""

    def __init__(self, connection: _socket.socket, operations: Operations) -> None:
        self._connection = connection
        self._operations = operations
        self._out = bytearray()
        self._descriptors: list[int] = []

    def serve(self) -> None:
        """Answers until the other side hangs up or sends what is no message."""
        while message := self._receive():
            try:
                requests = protocol.split_requests(message)
            except Malformed:
                return
            for request_id, operation, payload in requests:
                self._answer(request_id, operation, payload)
            self._flush()

    def _receive(self) -> bytes:
        """Gives the next message; nothing if there will be none. Descriptors sent to us are not accepted."""
        message, _, flags, _ = self._connection.recvmsg(protocol.MAX_MESSAGE)
        return b"" if flags & _socket.MSG_TRUNC else message

    def _answer(self, request_id: int, operation: int, payload: memoryview) -> None:
        answers: Iterator[Answer] = self._operations.perform(operation, payload)
        try:
            for answer in answers:
                self._add(request_id, 0, answer)
        except OSError as error:
            self._add(request_id, error.errno or errno.EIO, Answer(b""))
        except (Malformed, OverflowError):
            self._add(request_id, errno.EPROTO, Answer(b""))

    def _add(self, request_id: int, error: int, answer: Answer) -> None:
        if len(self._out) + REPLY.size + len(answer.payload) > protocol.MAX_MESSAGE:
            self._flush()
        flags = protocol.MORE if answer.has_more else 0
        if answer.descriptor is not None:
            flags |= protocol.HAS_DESCRIPTOR
            self._descriptors.append(answer.descriptor)
        self._out += REPLY.pack(request_id, error, flags, len(answer.payload))
        self._out += answer.payload
        if len(self._descriptors) >= protocol.MAX_DESCRIPTORS:
            self._flush()

    def _flush(self) -> None:
        if not self._out:
            return
        try:
            rights = b"".join(map(U32.pack, self._descriptors))
            ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
            self._connection.sendmsg([self._out], ancillary)
        finally:
            for fd in self._descriptors:
                os.close(fd)
            self._out.clear()
            self._descriptors.clear()


def open_mount(argument: str) -> Mount:
    """Opens what a ``FLAGS:PATH`` argument names; links in it are the administrator's, and followed."""
    flags, _, path = argument.partition(":")
    words = flags.split(",")
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise SystemExit(f"gofer: {path}: {(error.strerror or str(error)).lower()}") from None
    return Mount(fd, read_only="ro" in words, host_sockets="uds" in words)


def raise_descriptor_limit() -> int:
    """Raises RLIMIT_NOFILE as far as allowed and gives how many nodes fit under it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return _NODE_LIMIT if hard == resource.RLIM_INFINITY else min(hard - _RESERVED_DESCRIPTORS, _NODE_LIMIT)


def main() -> None:
    """Runs the gofer; the arguments are told in the module's docstring."""
    can_chown = confine.drop_capabilities()
    confine.die_with_parent(int(sys.argv[2]))
    confine.lock_privileges()
    connection = _socket.socket(fileno=int(sys.argv[1]))
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _SEND_BUFFER)
    os.set_inheritable(connection.fileno(), False)
    mounts = [open_mount(argument) for argument in sys.argv[3:]]
    os.umask(0)
    os.chdir("/proc/self/fd")
    operations = Operations(mounts, raise_descriptor_limit(), can_chown)
    confine.restrict_calls()
    try:
        Server(connection, operations).serve()
    except (ConnectionError, KeyboardInterrupt):
        pass  # the sentry has gone, or the terminal says so
