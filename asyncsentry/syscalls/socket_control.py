"""Control messages between guest memory and :class:`~asyncsentry.net.ancillary.Ancillary`. See cmsg(3), unix(7).

Order of checks after ``__scm_send`` and ``scm_fp_copy``; what is cut when there is no room after ``put_cmsg``
and ``scm_detach_fds``, net/core/scm.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import socket_h as s
from asyncsentry.abi.capability_h import CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
from asyncsentry.errnos import LinuxError
from asyncsentry.fs.fdtable import drop
from asyncsentry.net.ancillary import Ancillary, ControlMessage, Ucred, align_control, identity_of, split_control
from asyncsentry.net.unix_collect import collect_if_many

if TYPE_CHECKING:
    from asyncsentry.net.sockets import Socket
    from asyncsentry.tasks.thread import Thread

_HEADER = s.CMSGHDR.size

# From the guest ----------------------------------------------------------------------------------


async def parse_control(thread: Thread, sock: Socket, address: int, length: int) -> Ancillary:
    """Copies and checks what a sender sends along; the files in it are referenced."""
    ancillary = Ancillary(sender=identity_of(thread).ucred if sock.domain == s.AF_UNIX else None)
    if not address or not length:
        return ancillary
    if length > s.OPTMEM_MAX:
        raise errnos.ENOBUFS(f"{length} bytes of control messages")
    content = thread.memory.read(address, length)
    await collect_if_many(thread.kernel.unix)
    try:
        for message in split_control(content):
            _parse_message(thread, sock, ancillary, message)
    except LinuxError:
        await ancillary.release()
        raise
    return ancillary


def _parse_message(thread: Thread, sock: Socket, ancillary: Ancillary, message: ControlMessage) -> None:
    if message.level != s.SOL_SOCKET:
        ancillary.others.append(message)
    elif message.type == s.SCM_RIGHTS and sock.domain == s.AF_UNIX:
        _parse_rights(thread, ancillary, message.data)
    elif message.type == s.SCM_CREDENTIALS:
        if len(message.data) != s.UCRED.size:
            raise errnos.EINVAL("not a ucred")
        ancillary.credentials = _check_credentials(thread, Ucred(*s.UCRED.unpack(message.data)))
    else:
        raise errnos.EINVAL(f"no control message of type {message.type}")


def _parse_rights(thread: Thread, ancillary: Ancillary, data: bytes) -> None:
    count = len(data) // 4
    if len(ancillary.files) + count > s.SCM_MAX_FD:
        raise errnos.EINVAL(f"more than {s.SCM_MAX_FD} descriptors")
    if len(thread.kernel.unix.in_flight) > thread.fds.limit and not thread.credentials.has(CAP_SYS_ADMIN):
        raise errnos.ETOOMANYREFS("too many files in flight")
    for index in range(count):
        file = thread.fds.get(int.from_bytes(data[index * 4 : index * 4 + 4], "little", signed=True))
        file.references += 1
        ancillary.files.append(file)


def _check_credentials(thread: Thread, claimed: Ucred) -> Ucred:
    """Lets a thread claim any of its own identities, and others with the right capability."""
    own = thread.credentials
    if not (
        (claimed.pid == thread.process.pid or own.has(CAP_SYS_ADMIN))
        and (claimed.uid in (own.ruid, own.euid, own.suid) or own.has(CAP_SETUID))
        and (claimed.gid in (own.rgid, own.egid, own.sgid) or own.has(CAP_SETGID))
    ):
        raise errnos.EPERM("credentials of another")
    if claimed.pid != thread.process.pid and claimed.pid not in thread.kernel.processes:
        raise errnos.ESRCH(f"no process {claimed.pid}")
    return claimed


# To the guest ------------------------------------------------------------------------------------


class ControlBuffer:
    """A receiver's room for control messages, filled from the front."""

    def __init__(self, room: int) -> None:
        self.content = bytearray()
        self.flags = 0
        """MSG_CTRUNC once something did not fit."""
        self._room = room

    def put(self, message: ControlMessage) -> None:
        """Adds a message, cut if need be."""
        if self.left < _HEADER:
            self.flags |= s.MSG_CTRUNC
            return
        size = _HEADER + len(message.data)
        if size > self.left:
            self.flags |= s.MSG_CTRUNC
            size = self.left
        padded = min(align_control(_HEADER + len(message.data)), self.left)
        packed = s.CMSGHDR.pack(size, message.level, message.type) + message.data
        self.content += packed[:size].ljust(padded, b"\0")

    @property
    def left(self) -> int:
        """How much room is left."""
        return self._room - len(self.content)


async def emit_control(thread: Thread, ancillary: Ancillary | None, room: int, flags: int) -> ControlBuffer:
    """Lays out what a receiver gets, giving its files numbers; files without room are closed."""
    buffer = ControlBuffer(room)
    if ancillary is None:
        return buffer
    for message in ancillary.others:
        buffer.put(message)
    if ancillary.credentials is not None:
        buffer.put(ControlMessage(s.SOL_SOCKET, s.SCM_CREDENTIALS, s.UCRED.pack(*ancillary.credentials)))
    if ancillary.files:
        await _emit_rights(thread, ancillary, buffer, bool(flags & s.MSG_CMSG_CLOEXEC))
    return buffer


async def _emit_rights(thread: Thread, ancillary: Ancillary, buffer: ControlBuffer, close_on_exec: bool) -> None:
    numbers: list[int] = []
    fitting = max(0, (buffer.left - _HEADER) // 4)
    while ancillary.files and len(numbers) < fitting:
        try:
            numbers.append(thread.fds.install(ancillary.files[0], close_on_exec))
        except errnos.EMFILE:
            break
        await drop(ancillary.files.pop(0))
    if numbers:
        data = b"".join(number.to_bytes(4, "little") for number in numbers)
        buffer.put(ControlMessage(s.SOL_SOCKET, s.SCM_RIGHTS, data))
    if ancillary.files:
        buffer.flags |= s.MSG_CTRUNC
        await ancillary.release()
