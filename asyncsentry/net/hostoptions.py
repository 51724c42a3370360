"""Which options, control messages and flags pass through to host sockets: a list of what is allowed.

Left out is what needs privileges on the host, names other descriptors or attaches programs.
"""

from __future__ import annotations

from asyncsentry.abi import in_h, socket_h, tcp_h
from asyncsentry.abi.in_h import IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP
from asyncsentry.abi.socket_h import SOL_SOCKET

_SOCKET = (
    socket_h.SO_REUSEADDR, socket_h.SO_REUSEPORT, socket_h.SO_BROADCAST, socket_h.SO_KEEPALIVE, socket_h.SO_LINGER,
    socket_h.SO_SNDBUF, socket_h.SO_RCVBUF, socket_h.SO_OOBINLINE, socket_h.SO_NO_CHECK, socket_h.SO_DONTROUTE,
    socket_h.SO_RCVLOWAT, socket_h.SO_TIMESTAMP, socket_h.SO_TIMESTAMPNS, socket_h.SO_BINDTODEVICE,
    socket_h.SO_RXQ_OVFL, socket_h.SO_PEEK_OFF, socket_h.SO_INCOMING_CPU, socket_h.SO_PRIORITY,
)  # fmt: skip
_IP = (
    in_h.IP_TOS, in_h.IP_TTL, in_h.IP_PKTINFO, in_h.IP_MTU_DISCOVER, in_h.IP_RECVERR, in_h.IP_RECVTTL,
    in_h.IP_RECVTOS, in_h.IP_FREEBIND, in_h.IP_RECVORIGDSTADDR, in_h.IP_MINTTL, in_h.IP_BIND_ADDRESS_NO_PORT,
    in_h.IP_MULTICAST_IF, in_h.IP_MULTICAST_TTL, in_h.IP_MULTICAST_LOOP, in_h.IP_ADD_MEMBERSHIP,
    in_h.IP_DROP_MEMBERSHIP, in_h.IP_MULTICAST_ALL, in_h.IP_LOCAL_PORT_RANGE,
)  # fmt: skip
_IPV6 = (
    in_h.IPV6_MULTICAST_IF, in_h.IPV6_MULTICAST_HOPS, in_h.IPV6_MULTICAST_LOOP, in_h.IPV6_ADD_MEMBERSHIP,
    in_h.IPV6_DROP_MEMBERSHIP, in_h.IPV6_MTU_DISCOVER, in_h.IPV6_MTU, in_h.IPV6_RECVERR, in_h.IPV6_V6ONLY,
    in_h.IPV6_UNICAST_HOPS, in_h.IPV6_RECVPKTINFO, in_h.IPV6_RECVHOPLIMIT, in_h.IPV6_RECVTCLASS, in_h.IPV6_TCLASS,
    in_h.IPV6_RECVORIGDSTADDR, in_h.IPV6_ADDR_PREFERENCES, in_h.IPV6_MINHOPCOUNT,
)  # fmt: skip
_TCP = (
    tcp_h.TCP_NODELAY, tcp_h.TCP_MAXSEG, tcp_h.TCP_CORK, tcp_h.TCP_KEEPIDLE, tcp_h.TCP_KEEPINTVL, tcp_h.TCP_KEEPCNT,
    tcp_h.TCP_SYNCNT, tcp_h.TCP_LINGER2, tcp_h.TCP_DEFER_ACCEPT, tcp_h.TCP_WINDOW_CLAMP, tcp_h.TCP_QUICKACK,
    tcp_h.TCP_CONGESTION, tcp_h.TCP_USER_TIMEOUT, tcp_h.TCP_FASTOPEN, tcp_h.TCP_NOTSENT_LOWAT, tcp_h.TCP_INQ,
)  # fmt: skip
_UDPLITE = (tcp_h.UDPLITE_SEND_CSCOV, tcp_h.UDPLITE_RECV_CSCOV)
_UDP = (tcp_h.UDP_CORK, tcp_h.UDP_SEGMENT, tcp_h.UDP_GRO)

SETTABLE = frozenset(
    [(SOL_SOCKET, name) for name in _SOCKET] + [(IPPROTO_IP, name) for name in _IP]
    + [(IPPROTO_IPV6, name) for name in _IPV6] + [(IPPROTO_TCP, name) for name in _TCP]
    + [(IPPROTO_UDP, name) for name in _UDP] + [(in_h.IPPROTO_UDPLITE, name) for name in _UDPLITE]
)  # fmt: skip
"""(level, name) of what setsockopt(2) and getsockopt(2) pass on."""
GETTABLE = frozenset((
    (SOL_SOCKET, socket_h.SO_ERROR), (SOL_SOCKET, socket_h.SO_ACCEPTCONN), (SOL_SOCKET, socket_h.SO_PROTOCOL),
    (SOL_SOCKET, socket_h.SO_COOKIE), (SOL_SOCKET, socket_h.SO_SNDLOWAT), (IPPROTO_IP, in_h.IP_MTU),
    (IPPROTO_TCP, tcp_h.TCP_INFO),
))  # fmt: skip
"""What getsockopt(2) passes on besides."""
SENDABLE_CONTROL = frozenset((
    (IPPROTO_IP, in_h.IP_TOS), (IPPROTO_IP, in_h.IP_TTL), (IPPROTO_IP, in_h.IP_PKTINFO),
    (IPPROTO_IPV6, in_h.IPV6_PKTINFO), (IPPROTO_IPV6, in_h.IPV6_HOPLIMIT), (IPPROTO_IPV6, in_h.IPV6_TCLASS),
    (IPPROTO_UDP, tcp_h.UDP_SEGMENT),
))  # fmt: skip
"""Control messages a guest may send along; EINVAL for others."""
RECEIVABLE_CONTROL = SENDABLE_CONTROL | {
    (SOL_SOCKET, socket_h.SO_TIMESTAMP), (SOL_SOCKET, socket_h.SO_TIMESTAMPNS), (SOL_SOCKET, socket_h.SO_RXQ_OVFL),
    (IPPROTO_IP, in_h.IP_RECVERR), (IPPROTO_IP, in_h.IP_RECVORIGDSTADDR), (IPPROTO_IPV6, in_h.IPV6_RECVERR),
    (IPPROTO_IPV6, in_h.IPV6_RECVORIGDSTADDR), (IPPROTO_UDP, tcp_h.UDP_GRO), (IPPROTO_TCP, tcp_h.TCP_INQ),
}  # fmt: skip
SEND_FLAGS = (socket_h.MSG_OOB | socket_h.MSG_DONTROUTE | socket_h.MSG_EOR | socket_h.MSG_MORE | socket_h.MSG_CONFIRM)
RECEIVE_FLAGS = socket_h.MSG_OOB | socket_h.MSG_PEEK | socket_h.MSG_ERRQUEUE
