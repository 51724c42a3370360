"""What the AF_UNIX sockets of one network namespace share: abstract names, the list of sockets, files in flight.

Path names are not here: they are inodes of the file system, whose ``bound_socket`` is the socket. See unix(7).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from asyncsentry import errnos

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.net.unix import UnixSocket

_AUTOBIND_NAMES = 1 << 20


class UnixNamespace:
    """Abstract names, live sockets and files in flight."""

    def __init__(self) -> None:
        self.sockets: dict[UnixSocket, None] = {}
        """Every live socket, in order of creation."""
        self.in_flight: Counter[File] = Counter()
        """How many references each file has from messages not yet received."""
        self.collect_at = 64
        """How many files in flight make a send look for garbage first."""
        self.is_collecting = False
        """Whether garbage is being collected, so that releases it causes do not start it again."""
        self.discarded: list[File] = []
        """Files of messages thrown away, still to be dropped."""
        self.is_discarding = False
        """Whether somebody drops them."""
        self.releases: set[asyncio.Task[None]] = set()
        """Closes under way that a read(2) started."""
        self._abstract: dict[tuple[int, bytes], UnixSocket] = {}
        self._next_autobind = 0

    async def close(self) -> None:
        """Releases, at the end of the sandbox, the files in messages that nobody will receive."""
        files = tuple(dict.fromkeys((*self.in_flight, *self.discarded)))
        self.discarded.clear()
        for file in files:
            file.references = 0  # what a message of a released socket drops is released here, and only here
        for file in files:
            await file.release()

    def find_abstract(self, kind: int, name: bytes) -> UnixSocket | None:
        """Finds who has an abstract name; each socket type has its own, as in net/unix/af_unix.c."""
        return self._abstract.get((kind, name))

    def claim_abstract(self, socket: UnixSocket, name: bytes) -> None:
        """Gives a socket an abstract name; EADDRINUSE if it is taken."""
        if self._abstract.setdefault((socket.kind, name), socket) is not socket:
            raise errnos.EADDRINUSE(f"abstract name {name[1:]!r} is taken")

    def claim_any(self, socket: UnixSocket) -> bytes:
        """Gives a socket a free name of five hex digits, and tells it."""
        for _ in range(_AUTOBIND_NAMES):
            name = b"\0%05x" % self._next_autobind
            self._next_autobind = (self._next_autobind + 1) % _AUTOBIND_NAMES
            if (socket.kind, name) not in self._abstract:
                self._abstract[socket.kind, name] = socket
                return name
        raise errnos.ENOSPC("all automatic names are taken")

    def give_up(self, socket: UnixSocket) -> None:
        """Frees a socket's abstract name."""
        if self._abstract.get((socket.kind, socket.name)) is socket:
            del self._abstract[socket.kind, socket.name]

    def release_done(self, task: asyncio.Task[None]) -> None:
        """Forgets a finished close; what went wrong in it comes out here."""
        self.releases.discard(task)
        if not task.cancelled():
            task.result()
