"""AF_UNIX streams, after ``unix_stream_sendmsg`` and ``unix_stream_read_generic`` in net/unix/af_unix.c; unix(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import socket_h
from asyncsentry.net import sockets, unix_collect
from asyncsentry.net.ancillary import Ancillary, Caller, Received, Ucred
from asyncsentry.net.unix import Message, State
from asyncsentry.net.unix_connected import ConnectedUnixSocket

if TYPE_CHECKING:
    from asyncsentry.fs.file import File

PIECE_SIZE = 1 << 16
"""The most data one message of the queue holds; a send makes as many as fit."""


class UnixStreamSocket(ConnectedUnixSocket):
    """A connection without message boundaries."""

    async def find_receiver(self, caller: Caller, address: bytes) -> object:
        """Looks no address up: giving one is an error in itself."""
        return address

    def try_sendmsg(self, data: bytes, target: object = None, ancillary: Ancillary | None = None,
                    flags: int = 0) -> int:
        """Sends as much as the buffer takes; files go with the first piece."""
        if flags & socket_h.MSG_OOB:
            raise errnos.EOPNOTSUPP("no urgent data")
        if target is not None:
            raise errnos.EISCONN("connected") if self.state is State.ESTABLISHED else errnos.EOPNOTSUPP("no address")
        peer = self.peer
        if peer is None:
            raise errnos.ENOTCONN("not connected")
        if self.shutdown_mask & sockets.SEND_SHUTDOWN:
            raise errnos.EPIPE("shut down for sending")
        if not data:
            return 0
        if peer.is_dead or peer.shutdown_mask & sockets.RCV_SHUTDOWN:
            raise errnos.EPIPE("the peer reads no more")
        size = self.options.send_buffer
        if self.charged >= size:
            raise errnos.WouldBlock
        piece_size = min(PIECE_SIZE, size // 2 - 64)
        sent = 0
        while sent < len(data) and self.charged < size:
            piece = data[sent : sent + piece_size]
            peer.deliver(self.make_message(peer, piece, ancillary))
            sent += len(piece)
        return sent

    def try_recvmsg(self, count: int, flags: int = 0) -> Received:
        """Receives up to ``count`` bytes, never across a change of sender nor past a message with files."""
        if self.state is not State.ESTABLISHED:
            raise errnos.EINVAL("not connected")
        if flags & socket_h.MSG_OOB:
            raise errnos.EOPNOTSUPP("no urgent data")
        if not self.received:
            return self._receive_nothing()
        if flags & socket_h.MSG_PEEK:
            return self._peek(count)
        message = self.received[0]
        length = len(message.data) - message.start
        if message.files or length > count or (length < count and len(self.received) > 1):
            return self._receive(count)
        # One whole message is nearly always what there is and what is asked for.
        if self.options.peek_offset > 0:
            self.options.peek_offset = max(0, self.options.peek_offset - length)
        self._finish(message)
        return self._received([message.data[message.start :]], message.credentials, message.files, False)

    def _receive(self, count: int) -> Received:
        parts: list[bytes] = []
        left = count
        credentials = self.received[0].credentials
        files: list[File] = []
        is_boundary = False
        while self.received:
            message = self.received[0]
            if self.passes_credentials and message.credentials != credentials:
                is_boundary = True
                break
            left -= self._take(message, left, parts)
            if message.files:
                files, message.files = unix_collect.land(self.kernel.unix, message.files), []
                is_boundary = True
            if message.start < len(message.data):
                break
            self._finish(message)
            if is_boundary or not left:
                break
        if self.options.peek_offset > 0:
            self.options.peek_offset = max(0, self.options.peek_offset - count + left)
        return self._received(parts, credentials, files, is_boundary)

    def _receive_nothing(self) -> Received:
        self.take_error()
        if self.shutdown_mask & sockets.RCV_SHUTDOWN:
            return Received(b"")
        raise errnos.WouldBlock

    def _peek(self, count: int) -> Received:
        """Receives without taking, from SO_PEEK_OFF on if that is set."""
        skip = max(0, self.options.peek_offset)
        if skip >= self.count_unread():
            return self._receive_nothing()
        parts: list[bytes] = []
        credentials = self.received[0].credentials
        files: list[File] = []
        is_boundary = False
        for message in self.received:
            if skip >= len(message.data) - message.start:
                skip -= len(message.data) - message.start
                continue
            if self.passes_credentials and message.credentials != credentials:
                is_boundary = True
                break
            start = message.start
            message.start, skip = start + skip, 0
            taken = self._take(message, count, parts)
            count -= taken
            message.start = start
            if self.options.peek_offset >= 0:
                self.options.peek_offset += taken
            if message.files:
                files, is_boundary = list(message.files), True
                for file in files:
                    file.references += 1
            if is_boundary or not count:
                break
        return self._received(parts, credentials, files, is_boundary)

    def set_option(self, caller: Caller, level: int, name: int, value: bytes) -> None:
        """Sets an option, SO_PEEK_OFF included."""
        if level == socket_h.SOL_SOCKET and name == socket_h.SO_PEEK_OFF and len(value) >= 4:
            self.options.peek_offset = int.from_bytes(value[:4], "little", signed=True)
        else:
            super().set_option(caller, level, name, value)

    @staticmethod
    def _take(message: Message, count: int, parts: list[bytes]) -> int:
        part = message.data[message.start : message.start + count]
        message.start += len(part)
        parts.append(part)
        return len(part)

    def _finish(self, message: Message) -> None:
        self.received.popleft()
        message.sender.uncharge(message.charge)

    def _received(self, parts: list[bytes], credentials: Ucred, files: list[File], is_boundary: bool) -> Received:
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        address = self.peer.address if self.peer is not None and self.peer.name else b""
        return Received(data, address, self.ancillary_for(credentials, files), 0, len(data), is_boundary)
