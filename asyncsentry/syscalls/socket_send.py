"""sendto(2), sendmsg(2), sendmmsg(2)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import socket_h as s
from asyncsentry.abi.uio_h import MAX_RW_COUNT
from asyncsentry.errnos import Interrupted, LinuxError, TimedOut, WouldBlock
from asyncsentry.fs.fdtable import drop
from asyncsentry.net.ancillary import Ancillary
from asyncsentry.syscalls.args import Buffer, Fd, Flags, Int, Pointer, Size, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.socket_addresses import MessageHeader, get_socket, read_address, read_header, wait_queue
from asyncsentry.syscalls.socket_control import parse_control
from asyncsentry.syscalls.transfer import CHUNK, SIGPIPE, Segments, gather, raise_signal, timeout_deadline
from asyncsentry.tasks.thread import Thread

if TYPE_CHECKING:
    from asyncsentry.net.sockets import Socket

_ERRNOS = ("EACCES EAGAIN EBADF ECONNREFUSED ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN EMSGSIZE ENOBUFS "
           "ENOTCONN ENOTSOCK EOPNOTSUPP EPERM EPIPE ETOOMANYREFS")  # fmt: skip


@syscall(44, errnos=_ERRNOS)
def sendto(thread: Thread, fd: Fd, buffer: Buffer, count: Size, flags: Flags, address: Pointer,
           length: Int) -> int | Awaitable[int]:
    """sendto(2); the straight path is for a send without address that fits."""
    sock = get_socket(thread, fd)
    total = min(int(count), MAX_RW_COUNT)
    sent = 0
    if not address and total <= CHUNK and not sock.wants_sender:
        data = thread.memory.read_some(buffer, total)
        if len(data) == total and (sock.is_stream or total <= sock.message_size_max):
            try:
                sent = sock.try_sendmsg(data, None, None, flags)
            except WouldBlock:
                pass
            except errnos.EPIPE:
                _broken_pipe(thread, sock, flags)
                raise
            if sent == total:
                return sent
    return _sendto(thread, sock, ((buffer, total),), flags, address, length, sent)


async def _sendto(thread: Thread, sock: Socket, segments: Segments, flags: int, address: int, length: int,
                  sent: int) -> int:
    name = read_address(thread, address, length) if address else b""
    ancillary = await parse_control(thread, sock, 0, 0)
    return await send(thread, sock, segments, segments[0][1], name, ancillary, flags, sent)


@syscall(46, errnos=_ERRNOS)
async def sendmsg(thread: Thread, fd: Fd, message: Pointer, flags: Flags) -> int:
    """sendmsg(2)."""
    if flags & s.MSG_CMSG_COMPAT:
        raise errnos.EINVAL("MSG_CMSG_COMPAT is the kernel's own")
    sock = get_socket(thread, fd)
    return await _send_message(thread, sock, read_header(thread, message), flags)


@syscall(307, errnos=_ERRNOS)
async def sendmmsg(thread: Thread, fd: Fd, messages: Pointer, count: UInt, flags: Flags) -> int:
    """sendmmsg(2): an error after the first message only ends the call."""
    if flags & s.MSG_CMSG_COMPAT:
        raise errnos.EINVAL("MSG_CMSG_COMPAT is the kernel's own")
    sock = get_socket(thread, fd)
    done = 0
    try:
        for done in range(min(count, s.UIO_MAXIOV)):  # read after an error, too
            place = messages + done * s.MMSGHDR_SIZE
            sent = await _send_message(thread, sock, read_header(thread, place), flags)
            thread.memory.write_u32(place + s.MMSGHDR_LENGTH_OFFSET, sent)
    except (LinuxError, Interrupted):
        if not done:
            raise
        return done
    return min(count, s.UIO_MAXIOV)


async def _send_message(thread: Thread, sock: Socket, header: MessageHeader, flags: int) -> int:
    name = read_address(thread, header.name, header.name_length)
    ancillary = await parse_control(thread, sock, header.control, header.control_length)
    return await send(thread, sock, header.segments, header.total, name, ancillary, flags)


async def send(thread: Thread, sock: Socket, segments: Segments, total: int, name: bytes, ancillary: Ancillary,
               flags: int, sent: int = 0) -> int:
    """Sends from guest memory, with SIGPIPE where it belongs. Files nobody took are closed.

    Of a stream's bytes ``sent`` have been sent already.
    """
    sock.references += 1
    try:
        target = await sock.find_receiver(thread, name) if name else None
        if sock.is_stream:
            return await _send_stream(thread, sock, segments, total, target, ancillary, flags, sent)
        return await _send_one(thread, sock, segments, total, target, ancillary, flags)
    except errnos.EPIPE:
        _broken_pipe(thread, sock, flags)
        raise
    finally:
        await ancillary.release()
        await drop(sock)


def _broken_pipe(thread: Thread, sock: Socket, flags: int) -> None:
    if sock.raises_sigpipe and not flags & s.MSG_NOSIGNAL:
        raise_signal(thread, SIGPIPE)


async def _send_one(thread: Thread, sock: Socket, segments: Segments, total: int, target: object,
                    ancillary: Ancillary, flags: int) -> int:
    """Sends one whole message."""
    if total > sock.message_size_max:
        raise errnos.EMSGSIZE(f"message of {total} bytes")
    data = gather(thread.memory, segments, 0, total)
    if len(data) < total:
        raise errnos.EFAULT("message is not readable")
    deadline_ns = timeout_deadline(thread, sock.write_timeout_ns)
    while True:
        try:
            return sock.try_sendmsg(data, target, ancillary, flags)
        except WouldBlock:
            await _wait_room(thread, sock, target, flags, deadline_ns)


async def _send_stream(thread: Thread, sock: Socket, segments: Segments, total: int, target: object,
                       ancillary: Ancillary, flags: int, sent: int) -> int:
    """Sends all bytes, in pieces; once some are sent, whatever goes wrong only ends the call."""
    deadline_ns = timeout_deadline(thread, sock.write_timeout_ns)
    try:
        while True:
            data = gather(thread.memory, segments, sent, min(total - sent, CHUNK))
            if total > sent and not data:
                raise errnos.EFAULT("message is not readable")
            try:
                sent += sock.try_sendmsg(data, target, ancillary, flags)
            except WouldBlock:
                await _wait_room(thread, sock, target, flags, deadline_ns)
            else:
                if sent >= total:
                    return sent
    except (LinuxError, Interrupted):
        if sent:
            return sent
        raise


async def _wait_room(thread: Thread, sock: Socket, target: object, flags: int, deadline_ns: int | None) -> None:
    if sock.is_nonblocking(flags):
        raise errnos.EAGAIN("no room to send")
    queue, mask = sock.send_wait(target)
    try:
        await wait_queue(thread, queue, mask, deadline_ns)
    except TimedOut:
        raise errnos.EAGAIN("no room to send in time") from None
