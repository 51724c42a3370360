"""Ancillary data: what travels beside the bytes of a message. See cmsg(3), unix(7).

Control messages of a guest are parsed into an :class:`Ancillary` by ``syscalls/socket_control.py``.
Files in one are references owned by whoever holds it: a socket that accepts them takes them out of
the list, and what is left in the list must be dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from asyncsentry import errnos
from asyncsentry.abi.socket_h import CMSGHDR
from asyncsentry.fs.fdtable import drop

if TYPE_CHECKING:
    from asyncsentry.fs.file import File

_ALIGNMENT = 8
OVERFLOW_ID = 65534
"""The user and group shown where none is known."""


class Ucred(NamedTuple):
    """Who sent a message: ``struct ucred``."""

    pid: int
    uid: int
    gid: int


NOBODY = Ucred(0, OVERFLOW_ID, OVERFLOW_ID)


class ControlMessage(NamedTuple):
    """One control message that is neither SCM_RIGHTS nor SCM_CREDENTIALS."""

    level: int
    type: int
    data: bytes


def align_control(length: int) -> int:
    """Rounds a length up to where the next control message begins."""
    return (length + _ALIGNMENT - 1) & -_ALIGNMENT


def split_control(content: bytes) -> list[ControlMessage]:
    """Splits a control buffer into its messages; EINVAL if a length is wrong."""
    messages = []
    offset = 0
    while offset + CMSGHDR.size <= len(content):
        size, level, kind = CMSGHDR.unpack_from(content, offset)
        if not CMSGHDR.size <= size <= len(content) - offset:
            raise errnos.EINVAL(f"control message of {size} bytes")
        messages.append(ControlMessage(level, kind, content[offset + CMSGHDR.size : offset + size]))
        offset += align_control(size)
    return messages


def join_control(messages: list[ControlMessage]) -> bytes:
    """Lays control messages out as a buffer."""
    parts = []
    for level, kind, data in messages:
        size = CMSGHDR.size + len(data)
        parts.append((CMSGHDR.pack(size, level, kind) + data).ljust(align_control(size), b"\0"))
    return b"".join(parts)


@dataclass(slots=True)
class Ancillary:
    """The control messages of one message."""

    files: list[File] = field(default_factory=list)
    """SCM_RIGHTS: one counted reference each."""
    credentials: Ucred | None = None
    """SCM_CREDENTIALS, when the sender gave them or the receiver asked for them."""
    sender: Ucred | None = None
    """Who sends, for sockets that attach credentials by themselves (SO_PASSCRED)."""
    others: list[ControlMessage] = field(default_factory=list)
    """What is passed through untouched."""

    async def release(self) -> None:
        """Drops the files nobody took."""
        while self.files:
            await drop(self.files.pop())


class Received(NamedTuple):
    """What one receive gave."""

    data: bytes
    address: bytes = b""
    """The sender's ``sockaddr``; empty if it has none."""
    ancillary: Ancillary | None = None
    flags: int = 0
    """MSG_TRUNC, MSG_EOR, … as ``msg_flags`` shows them."""
    length: int = 0
    """The true length of a message, when more than what was asked for."""
    complete: bool = True
    """Whether MSG_WAITALL must not wait for more: end of file, an error, a boundary, a whole message."""


class Identity(Protocol):
    """The part of a thread's credentials that sockets ask about."""

    @property
    def ruid(self) -> int:
        """Real user."""

    @property
    def euid(self) -> int:
        """Effective user."""

    @property
    def suid(self) -> int:
        """Saved user."""

    @property
    def rgid(self) -> int:
        """Real group."""

    @property
    def egid(self) -> int:
        """Effective group."""

    @property
    def sgid(self) -> int:
        """Saved group."""

    @property
    def groups(self) -> tuple[int, ...]:
        """Supplementary groups."""

    def has(self, capability: int) -> bool:
        """Whether a capability is effective."""


class CallerProcess(Protocol):
    """The process of a caller."""

    @property
    def pid(self) -> int:
        """Its number."""


class Caller(Protocol):
    """What sockets see of the guest thread that calls them."""

    @property
    def credentials(self) -> Identity:
        """Who it is."""

    @property
    def process(self) -> CallerProcess:
        """Which process it belongs to."""


class PeerIdentity(NamedTuple):
    """Who made or connected a socket, as SO_PEERCRED and SO_PEERGROUPS of its peer tell."""

    ucred: Ucred
    groups: tuple[int, ...]


def identity_of(caller: Caller) -> PeerIdentity:
    """Gives what a peer may learn of a caller: its process, effective IDs and groups."""
    credentials = caller.credentials
    return PeerIdentity(Ucred(caller.process.pid, credentials.euid, credentials.egid), credentials.groups)
