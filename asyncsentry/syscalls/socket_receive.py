"""recvfrom(2), recvmsg(2), recvmmsg(2)."""

from __future__ import annotations

from collections.abc import Awaitable
from struct import Struct
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import socket_h as s
from asyncsentry.abi.uio_h import MAX_RW_COUNT
from asyncsentry.clock import NS_PER_SECOND
from asyncsentry.errnos import Interrupted, LinuxError, TimedOut, WouldBlock
from asyncsentry.fs.fdtable import drop
from asyncsentry.net.ancillary import Ancillary, Received
from asyncsentry.syscalls.args import Buffer, Fd, Flags, Pointer, Size, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.syscalls.socket_addresses import MessageHeader, get_socket, read_header, wait_queue, write_address
from asyncsentry.syscalls.socket_control import emit_control
from asyncsentry.syscalls.transfer import CHUNK, READ_EVENTS, Segments, scatter, timeout_deadline
from asyncsentry.tasks.thread import Thread

if TYPE_CHECKING:
    from asyncsentry.net.sockets import Socket

_ERRNOS = "EAGAIN EBADF ECONNREFUSED ECONNRESET EFAULT EINTR EINVAL EMSGSIZE ENOTCONN ENOTSOCK EOPNOTSUPP ETIMEDOUT"
_PLAIN_FLAGS = s.MSG_DONTWAIT | s.MSG_NOSIGNAL
_NAME_LENGTH_OFFSET, _CONTROL_LENGTH_OFFSET = 8, 40
_LENGTH_AND_FLAGS = Struct("<QI")
"""``msg_controllen`` and ``msg_flags``, which follow each other."""


@syscall(45, errnos=_ERRNOS)
def recvfrom(thread: Thread, fd: Fd, buffer: Buffer, count: Size, flags: Flags, address: Pointer,
             length: Pointer) -> int | Awaitable[int]:
    """recvfrom(2); the straight path is for a receive without address and with nothing special."""
    sock = get_socket(thread, fd)
    total = min(int(count), MAX_RW_COUNT)
    if not address and not flags & ~_PLAIN_FLAGS and sock.options.receive_low_water <= 1:
        try:
            received = sock.try_recvmsg(min(total, CHUNK), flags)
        except WouldBlock:
            return _recvfrom(thread, sock, ((buffer, total),), flags, address, length)
        return _deliver(thread, sock, buffer, received)
    return _recvfrom(thread, sock, ((buffer, total),), flags, address, length)


def _deliver(thread: Thread, sock: Socket, buffer: int, received: Received) -> int | Awaitable[int]:
    data = received.data
    copied = thread.memory.write_some(buffer, data) if data else 0
    if copied < len(data):
        sock.unread(data[copied:])
        if not copied:
            raise errnos.EFAULT("buffer is not writable")
    ancillary = received.ancillary
    return copied if ancillary is None or not ancillary.files else _release(ancillary, copied)


async def _release(ancillary: Ancillary, result: int) -> int:
    await ancillary.release()
    return result


async def _recvfrom(thread: Thread, sock: Socket, segments: Segments, flags: int, address: int, length: int) -> int:
    receipt = await receive(thread, sock, segments, segments[0][1], flags)
    await receipt.ancillary.release()
    if address:
        write_address(thread, receipt.address, address, length)
    return receipt.result


@syscall(47, errnos=_ERRNOS)
async def recvmsg(thread: Thread, fd: Fd, message: Pointer, flags: Flags) -> int:
    """recvmsg(2)."""
    if flags & s.MSG_CMSG_COMPAT:
        raise errnos.EINVAL("MSG_CMSG_COMPAT is the kernel's own")
    sock = get_socket(thread, fd)
    return await _receive_message(thread, sock, message, flags)


@syscall(299, errnos=_ERRNOS)
async def recvmmsg(thread: Thread, fd: Fd, messages: Pointer, count: UInt, flags: Flags,
                   timeout: Pointer) -> int:  # noqa: ASYNC109  # the name it has in Linux, an address
    """recvmmsg(2): the timeout is looked at only after a message arrived, as in Linux."""
    if flags & s.MSG_CMSG_COMPAT:
        raise errnos.EINVAL("MSG_CMSG_COMPAT is the kernel's own")
    deadline_ns = _read_timeout(thread, timeout) if timeout else None
    sock = get_socket(thread, fd)
    if not flags & s.MSG_ERRQUEUE:
        sock.take_error()
    done = 0
    each_flags = flags & ~s.MSG_WAITFORONE
    try:
        while done < min(count, s.UIO_MAXIOV):
            place = messages + done * s.MMSGHDR_SIZE
            length = await _receive_message(thread, sock, place, each_flags)
            thread.memory.write_u32(place + s.MMSGHDR_LENGTH_OFFSET, length)
            done += 1
            if flags & s.MSG_WAITFORONE:
                each_flags |= s.MSG_DONTWAIT
            if deadline_ns is not None and thread.kernel.clock.now_ns() >= deadline_ns:
                break
    except errnos.EAGAIN:
        if not done:
            raise
    except LinuxError as error:
        if not done:
            raise
        sock.error = type(error)  # the next call on the socket reports it
    except Interrupted:
        if not done:
            raise
    if timeout and deadline_ns is not None:
        left_ns = max(0, deadline_ns - thread.kernel.clock.now_ns())
        thread.memory.write_struct(timeout, s.TIMEVAL, *divmod(left_ns, NS_PER_SECOND))
    return done


def _read_timeout(thread: Thread, address: int) -> int:
    seconds, nanoseconds = thread.memory.read_struct(address, s.TIMEVAL)
    if seconds < 0 or not 0 <= nanoseconds < NS_PER_SECOND:
        raise errnos.EINVAL("not a timespec")
    return thread.kernel.clock.now_ns() + int(seconds) * NS_PER_SECOND + int(nanoseconds)


async def _receive_message(thread: Thread, sock: Socket, place: int, flags: int) -> int:
    header = read_header(thread, place)
    receipt = await receive(thread, sock, header.segments, header.total, flags)
    try:
        return await _write_header(thread, place, header, receipt, flags)
    finally:
        await receipt.ancillary.release()


async def _write_header(thread: Thread, place: int, header: MessageHeader, receipt: Receipt, flags: int) -> int:
    """Writes address, control messages and the fields of the header that tell of them."""
    room = header.control_length if header.control else 0
    control = await emit_control(thread, receipt.ancillary, room, flags)
    memory = thread.memory
    if control.content:
        memory.write(header.control, bytes(control.content))
    if header.name:
        memory.write(header.name, receipt.address[: header.name_length])
        memory.write_u32(place + _NAME_LENGTH_OFFSET, len(receipt.address))
    message_flags = receipt.flags | control.flags | flags & s.MSG_CMSG_CLOEXEC
    memory.write_struct(place + _CONTROL_LENGTH_OFFSET, _LENGTH_AND_FLAGS, len(control.content), message_flags)
    return receipt.result


class Receipt:
    """What a receive has put into guest memory, and what is still to be told."""

    __slots__ = ("address", "ancillary", "copied", "flags", "result")

    def __init__(self) -> None:
        self.copied = 0
        self.result = 0
        self.address = b""
        self.flags = 0
        self.ancillary = Ancillary()

    def add(self, received: Received, flags: int) -> None:
        """Notes one more piece."""
        self.result = received.length if flags & s.MSG_TRUNC and received.length else self.copied
        self.address = self.address or received.address
        self.flags |= received.flags
        if received.ancillary is not None:
            self.ancillary = received.ancillary


async def receive(thread: Thread, sock: Socket, segments: Segments, total: int, flags: int) -> Receipt:
    """Receives into guest memory; the caller must release the receipt's ancillary."""
    receipt = Receipt()
    wanted = total if flags & s.MSG_WAITALL else min(sock.options.receive_low_water, total)
    deadline_ns = timeout_deadline(thread, sock.read_timeout_ns)
    sock.references += 1
    try:
        while True:
            if flags & s.MSG_PEEK:
                receipt.copied = 0
            try:
                left = total - receipt.copied
                received = sock.try_recvmsg(min(left, CHUNK) if sock.is_stream else left, flags)
            except WouldBlock:
                await _wait_data(thread, sock, flags, deadline_ns)
                continue
            _copy_out(thread, sock, segments, receipt, received, flags)
            if not sock.is_stream or received.complete or not received.data or receipt.copied >= wanted:
                return receipt
            if flags & s.MSG_PEEK:
                await _wait_data(thread, sock, flags, deadline_ns)
    except (LinuxError, Interrupted):
        if receipt.copied:
            return receipt
        await receipt.ancillary.release()
        raise
    finally:
        await drop(sock)


def _copy_out(thread: Thread, sock: Socket, segments: Segments, receipt: Receipt, received: Received,
              flags: int) -> None:
    copied = scatter(thread.memory, segments, receipt.copied, received.data)
    receipt.copied += copied
    receipt.add(received, flags)
    if copied < len(received.data):
        if not flags & s.MSG_PEEK:
            sock.unread(received.data[copied:])
        raise errnos.EFAULT("buffer is not writable")


async def _wait_data(thread: Thread, sock: Socket, flags: int, deadline_ns: int | None) -> None:
    if sock.is_nonblocking(flags):
        raise errnos.EAGAIN("nothing to receive yet")
    try:
        await wait_queue(thread, sock.queue, READ_EVENTS, deadline_ns)
    except TimedOut:
        raise errnos.EAGAIN("nothing received in time") from None
