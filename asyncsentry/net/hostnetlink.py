"""``--network=host``: AF_NETLINK sockets of NETLINK_ROUTE, for questions alone. See netlink(7), rtnetlink(7).

Every request is copied, checked to be one that asks (RTM_GET…), and only then handed to the host; whatever would
change the host's network is EPERM, as it is for a process without CAP_NET_ADMIN. Answers come from the host.
"""

from __future__ import annotations

import socket as host
from typing import TYPE_CHECKING

from asyncsentry import errnos
from asyncsentry.abi import netlink_h, socket_h
from asyncsentry.net.ancillary import Ancillary, Caller, identity_of
from asyncsentry.net.hostcalls import HostCalls
from asyncsentry.net.hostinet import HostFamily, HostSocket
from asyncsentry.net.hostpoll import HostPoller
from asyncsentry.net.sockets import Socket

if TYPE_CHECKING:
    from asyncsentry.kernel import Kernel

_QUESTIONS = frozenset((
    netlink_h.RTM_GETLINK, netlink_h.RTM_GETADDR, netlink_h.RTM_GETROUTE, netlink_h.RTM_GETNEIGH,
    netlink_h.RTM_GETRULE, netlink_h.RTM_GETQDISC, netlink_h.RTM_GETTCLASS, netlink_h.RTM_GETTFILTER,
    netlink_h.RTM_GETMULTICAST, netlink_h.RTM_GETANYCAST, netlink_h.RTM_GETNEIGHTBL, netlink_h.RTM_GETADDRLABEL,
    netlink_h.RTM_GETNETCONF, netlink_h.RTM_GETNSID, netlink_h.RTM_GETSTATS,
))  # fmt: skip
_OPTIONS = frozenset((
    netlink_h.NETLINK_ADD_MEMBERSHIP, netlink_h.NETLINK_DROP_MEMBERSHIP, netlink_h.NETLINK_PKTINFO,
    netlink_h.NETLINK_NO_ENOBUFS, netlink_h.NETLINK_LIST_MEMBERSHIPS, netlink_h.NETLINK_CAP_ACK,
    netlink_h.NETLINK_EXT_ACK, netlink_h.NETLINK_GET_STRICT_CHK,
))  # fmt: skip


class HostNetlinkSocket(HostSocket):
    """A routing socket of the host that may only ask."""

    def passes(self, level: int, name: int) -> bool:
        """Whether an option passes: those of netlink, too."""
        return super().passes(level, name) or (level == netlink_h.SOL_NETLINK and name in _OPTIONS)

    def try_sendmsg(self, data: bytes, target: object = None, ancillary: Ancillary | None = None,
                    flags: int = 0) -> int:
        """Sends requests to the host kernel, and to nobody else."""
        if isinstance(target, bytes):
            if len(target) < netlink_h.SOCKADDR_NL.size:
                raise errnos.EINVAL("not a netlink address")
            _, _, port, groups = netlink_h.SOCKADDR_NL.unpack_from(target)
            if port or groups:
                raise errnos.EPERM("only the kernel can be asked")
        super().try_sendmsg(questions_in(data), target, ancillary, flags)
        return len(data)

    def try_write(self, data: bytes, offset: int | None = None) -> int:
        """Sends requests."""
        super().try_write(questions_in(data), offset)
        return len(data)

    def try_connect(self, target: object, caller: Caller) -> None:
        """Connects to the kernel; other ports are not for guests."""
        assert isinstance(target, bytes)
        if any(target[4 : netlink_h.SOCKADDR_NL.size]):
            raise errnos.EPERM("only the kernel can be asked")
        super().try_connect(target, caller)


def questions_in(data: bytes) -> bytes:
    """Gives the well-formed requests at the beginning of a message; EPERM unless all of them ask.

    Linux ignores what follows them, programs send such bytes, and the host must not see what was not checked.
    """
    offset = 0
    while offset + netlink_h.NLMSGHDR.size <= len(data):
        length, kind, _, _, _ = netlink_h.NLMSGHDR.unpack_from(data, offset)
        if not netlink_h.NLMSGHDR.size <= length <= len(data) - offset:
            break
        if kind not in _QUESTIONS:
            raise errnos.EPERM(f"netlink request of type {kind} does not pass")
        offset += (length + netlink_h.NLMSG_ALIGNTO - 1) & -netlink_h.NLMSG_ALIGNTO
    return data[:offset]


class HostNetlinkFamily(HostFamily):
    """Makes routing sockets."""

    def __init__(self, poller: HostPoller, calls: HostCalls) -> None:
        super().__init__(socket_h.AF_NETLINK, poller, calls)

    def create(self, kernel: Kernel, caller: Caller, kind: int, protocol: int, flags: int) -> Socket:
        """Makes a socket of NETLINK_ROUTE; other protocols are not there."""
        if kind not in (socket_h.SOCK_RAW, socket_h.SOCK_DGRAM):
            raise errnos.ESOCKTNOSUPPORT(f"no socket type {kind}")
        if protocol != netlink_h.NETLINK_ROUTE:
            raise errnos.EPROTONOSUPPORT(f"no netlink protocol {protocol}")
        try:
            inner = host.socket(socket_h.AF_NETLINK, kind, protocol)
        except OSError as error:
            raise errnos.from_host(error) from None
        return HostNetlinkSocket(kernel, self, inner, flags, identity_of(caller))
