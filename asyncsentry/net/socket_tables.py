"""The tables of sockets in /proc/net: tcp, udp, raw, unix and sockstat. See proc_pid_net(5).

Which sockets there are is told by the descriptor tables of guest threads, so the same code serves every
network; a socket that waits to be accepted or travels in a message is not shown.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import socket_h as s
from asyncsentry.fs.procfs.net import NETWORK_FILES
from asyncsentry.net.sockets import Socket
from asyncsentry.net.unix import State, UnixSocket

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel

ESTABLISHED, CLOSED, LISTENING = 1, 7, 10
"""TCP states as the tables show them."""
_SS_UNCONNECTED, _SS_CONNECTED = 1, 3
_ACCEPTS = 0x10000
_KINDS = {
    "tcp": (s.AF_INET, s.SOCK_STREAM), "tcp6": (s.AF_INET6, s.SOCK_STREAM), "udp": (s.AF_INET, s.SOCK_DGRAM),
    "udp6": (s.AF_INET6, s.SOCK_DGRAM), "raw": (s.AF_INET, s.SOCK_RAW), "raw6": (s.AF_INET6, s.SOCK_RAW),
}  # fmt: skip


class SocketTables:
    """Hangs from the kernel as ``network_tables``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def render(self, name: str) -> str | None:
        """Gives the whole text of ``/proc/net/NAME``; ``None`` for tables it knows nothing of."""
        if name == "unix":
            return NETWORK_FILES[name] + "".join(map(_unix_row, self._kernel.unix.sockets))
        if name in ("sockstat", "sockstat6"):
            return self._counts(name)
        wanted = _KINDS.get(name)
        if wanted is None:
            return None
        found = (socket for socket in self.sockets() if (socket.domain, socket.kind) == wanted)
        rows = filter(None, map(_inet_row, found))
        return NETWORK_FILES[name] + "".join(f"{number:4d}: {row}" for number, row in enumerate(rows))

    def sockets(self) -> Iterator[Socket]:
        """Gives every socket a guest has a descriptor of, once."""
        seen: set[int] = set()
        for thread in tuple(self._kernel.threads.values()):
            for file in tuple(thread.fds.files.values()):
                if isinstance(file, Socket) and id(file) not in seen:
                    seen.add(id(file))
                    yield file

    def _counts(self, name: str) -> str:
        suffix = "6" if name.endswith("6") else ""
        domain = s.AF_INET6 if suffix else s.AF_INET
        found = list(self.sockets())
        streams, messages, raws = (
            sum(socket.domain == domain and socket.kind == kind for socket in found)
            for kind in (s.SOCK_STREAM, s.SOCK_DGRAM, s.SOCK_RAW)
        )
        if suffix:
            return (
                f"TCP6: inuse {streams}\nUDP6: inuse {messages}\nUDPLITE6: inuse 0\nRAW6: inuse {raws}\n"
                "FRAG6: inuse 0 memory 0\n"
            )
        return (
            f"sockets: used {len(found)}\nTCP: inuse {streams} orphan 0 tw 0 alloc {streams} mem 0\n"
            f"UDP: inuse {messages} mem 0\nUDPLITE: inuse 0\nRAW: inuse {raws}\nFRAG: inuse 0 memory 0\n"
        )


def _unix_row(socket: UnixSocket) -> str:
    assert socket.inode is not None
    listens = socket.state is State.LISTENING
    state = _SS_CONNECTED if socket.state is State.ESTABLISHED else _SS_UNCONNECTED
    path = ""
    if socket.name:
        text = os.fsdecode(socket.name.replace(b"\0", b"@") if socket.name[:1] == b"\0" else socket.name.rstrip(b"\0"))
        path = f" {text}"
    return (
        f"{0:016x}: {max(2, socket.references + 1):08X} 00000000 {_ACCEPTS if listens else 0:08X} "
        f"{socket.kind:04X} {state:02X} {socket.inode.ino:5d}{path}\n"
    )


def _inet_row(socket: Socket) -> str | None:
    assert socket.inode is not None
    try:
        local = _end(socket.local_name())
    except errnos.LinuxError:
        return None
    try:
        peer, state = _end(socket.peer_name()), ESTABLISHED
    except errnos.LinuxError:
        peer, state = _end(bytes(28 if socket.domain == s.AF_INET6 else 16)), CLOSED
    if socket.is_listening:
        state = LISTENING
    uid = socket.creator.ucred.uid
    tail = "1 0000000000000000 100 0 0 10 0" if socket.kind == s.SOCK_STREAM else "2 0000000000000000 0"
    return (
        f"{local} {peer} {state:02X} 00000000:00000000 00:00000000 00000000 {uid:5d} {0:8d} {socket.inode.ino} {tail}\n"
    )


def _end(name: bytes) -> str:
    """Gives ``ADDRESS:PORT`` in hexadecimal, the address in words of the processor's order."""
    port = int.from_bytes(name[2:4], "big")
    address = name[8:24] if len(name) >= 28 else name[4:8]
    words = struct.unpack(f"<{len(address) // 4}I", address)
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"
