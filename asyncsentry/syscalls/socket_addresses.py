"""What all socket calls share: descriptors to sockets, addresses and message headers from guest memory, waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asyncsentry import errnos
from asyncsentry.abi.socket_h import MSGHDR, SOCKADDR_STORAGE_SIZE, UIO_MAXIOV
from asyncsentry.abi.uio_h import MAX_RW_COUNT
from asyncsentry.errnos import Interrupted
from asyncsentry.net.sockets import Socket

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread
    from asyncsentry.waiter import WaitQueue

_O_PATH = 0o10000000


def get_socket(thread: Thread, fd: int) -> Socket:
    """Finds a socket; EBADF for no file, ENOTSOCK for any other file."""
    file = thread.fds.get(fd)
    if not isinstance(file, Socket):
        if file.flags & _O_PATH:
            raise errnos.EBADF(f"fd {fd} only names a path")
        raise errnos.ENOTSOCK(f"fd {fd} is no socket")
    return file


def read_address(thread: Thread, address: int, length: int) -> bytes:
    """Copies a ``sockaddr`` from the guest; ``length`` is a C int it gave."""
    if not 0 <= length <= SOCKADDR_STORAGE_SIZE:
        raise errnos.EINVAL(f"address of {length} bytes")
    return thread.memory.read(address, length) if length else b""


def write_address(thread: Thread, name: bytes, address: int, length_address: int) -> None:
    """Copies a ``sockaddr`` to the guest, cut to the room it has, and says how long it really is."""
    room = thread.memory.read_i32(length_address)
    if room < 0:
        raise errnos.EINVAL("negative length")
    thread.memory.write(address, name[:room])
    thread.memory.write_u32(length_address, len(name))


class MessageHeader(NamedTuple):
    """A ``struct msghdr``, copied once; the memory its pointers lead to is not read yet."""

    name: int
    name_length: int
    segments: list[tuple[int, int]]
    total: int
    control: int
    control_length: int


def read_header(thread: Thread, address: int) -> MessageHeader:
    """Copies a ``msghdr`` and its vector: EMSGSIZE for too many pieces, as ``copy_msghdr_from_user`` has it."""
    name, name_length, vector, count, control, control_length, _ = thread.memory.read_struct(address, MSGHDR)
    if name_length >> 31:
        raise errnos.EINVAL("negative address length")
    if count > UIO_MAXIOV:
        raise errnos.EMSGSIZE(f"{count} pieces")
    if control_length >> 31:
        raise errnos.ENOBUFS(f"{control_length} bytes of control messages")
    segments = thread.memory.read_iovec(vector, count)
    total = min(sum(length for _, length in segments), MAX_RW_COUNT)
    return MessageHeader(name, min(name_length, SOCKADDR_STORAGE_SIZE) if name else 0, segments, total, control,
                         control_length)


async def wait_queue(thread: Thread, queue: WaitQueue, mask: int, deadline_ns: int | None) -> None:
    """Waits for a queue; a wait with a deadline is never restarted after a signal, signal(7)."""
    try:
        await thread.block(queue, mask, deadline_ns)
    except Interrupted:
        if deadline_ns is not None:
            raise errnos.EINTR("interrupted") from None
        raise
