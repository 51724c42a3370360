"""Questions about network interfaces, netdevice(7), answered by the host: read-only requests alone."""

from __future__ import annotations

import array
import fcntl
import struct
from typing import Protocol, runtime_checkable

from asyncsentry import errnos
from asyncsentry.net.ioctls import Memory

SIOCGIFNAME = 0x8910
SIOCGIFCONF = 0x8912
SIOCGIFFLAGS = 0x8913
SIOCGIFADDR = 0x8915
SIOCGIFDSTADDR = 0x8917
SIOCGIFBRDADDR = 0x8919
SIOCGIFNETMASK = 0x891B
SIOCGIFMETRIC = 0x891D
SIOCGIFMTU = 0x8921
SIOCGIFHWADDR = 0x8927
SIOCGIFINDEX = 0x8933
SIOCGIFTXQLEN = 0x8942

INTERFACE_REQUESTS = frozenset((
    SIOCGIFNAME, SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFDSTADDR, SIOCGIFBRDADDR, SIOCGIFNETMASK,
    SIOCGIFMETRIC, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFTXQLEN,
))  # fmt: skip
_IFREQ_SIZE = 40
_IFCONF = struct.Struct("<i4xQ")
_IFCONF_SIZE_MAX = 1 << 16


@runtime_checkable
class InterfaceSource(Protocol):
    """A family that knows interfaces; sockets of all families ask AF_INET's, as netdevice(7) allows."""

    def ask_interfaces(self, memory: Memory, request: int, argument: int) -> int:
        """Answers one of :data:`INTERFACE_REQUESTS`."""


def interface_ioctl(fd: int, memory: Memory, request: int, argument: int) -> int:
    """Asks the host through the socket ``fd``; the only pointer in these requests is replaced by our own."""
    if request == SIOCGIFCONF:
        return _interface_list(fd, memory, argument)
    question = memory.read(argument, _IFREQ_SIZE)
    try:
        answer = fcntl.ioctl(fd, request, question)
    except OSError as error:
        raise errnos.from_host(error) from None
    memory.write(argument, answer)
    return 0


def _interface_list(fd: int, memory: Memory, argument: int) -> int:
    size, address = _IFCONF.unpack(memory.read(argument, _IFCONF.size))
    if size < 0:
        raise errnos.EINVAL(f"room for {size} bytes")
    room = _IFCONF_SIZE_MAX if not address else min(size, _IFCONF_SIZE_MAX)
    rows = array.array("B", bytes(room))
    try:
        answer = fcntl.ioctl(fd, SIOCGIFCONF, _IFCONF.pack(room, rows.buffer_info()[0]))
    except OSError as error:
        raise errnos.from_host(error) from None
    length, _ = _IFCONF.unpack(answer)
    if address:  # a null pointer only asks how much room it takes
        memory.write(address, rows[:length].tobytes())
    memory.write_i32(argument, length)
    return 0
