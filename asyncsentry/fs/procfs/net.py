"""/proc/PID/net: tables of sockets, interfaces and routes. See proc_pid_net(5).

The network stack in force renders what it knows through ``kernel.network_tables`` (see
:class:`NetworkTables`); of the rest the headers are shown, as a kernel without such sockets would.
"""

from __future__ import annotations

from typing import Protocol

from asyncsentry.fs.procfs.base import Subject

_INET = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    "                                                     \n"
)
_INET_DATAGRAM = (
    "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    " ref pointer drops            \n"
)
_INET6 = (
    "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when"
    " retrnsmt   uid  timeout inode\n"
)
_INET6_DATAGRAM = _INET6.rstrip("\n") + " ref pointer drops\n"
_RAW = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    " ref pointer drops\n"
)

NETWORK_FILES: dict[str, str] = {
    "arp": "IP address       HW type     Flags       HW address            Mask     Device\n",
    "dev": (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|"
        "bytes    packets errs drop fifo colls carrier compressed\n"
        "    lo:       0       0    0    0    0     0          0         0"
        "        0       0    0    0    0     0       0          0\n"
    ),
    "dev_mcast": "",
    "fib_trie": "",
    "fib_triestat": "",
    "icmp": _INET_DATAGRAM,
    "icmp6": _INET6_DATAGRAM,
    "if_inet6": "00000000000000000000000000000001 01 80 10 80       lo\n",
    "igmp": "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n",
    "igmp6": "",
    "ipv6_route": "",
    "netlink": "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n",
    "netstat": (
        "TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed\nTcpExt: 0 0 0\nIpExt: InOctets OutOctets\nIpExt: 0 0\n"
    ),
    "packet": "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n",
    "protocols": (
        "protocol  size sockets  memory press maxhdr  slab module     "
        "cl co di ac io in de sh ss gs se re bi br ha uh gp em\n"
    ),
    "psched": "000003e8 00000040 000f4240 3b9aca00\n",
    "ptype": "Type Device      Function\n",
    "raw": _RAW,
    "raw6": _INET6_DATAGRAM,
    "route": (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
        "                                                       \n"
    ),
    "rt_cache": "",
    "snmp": (
        "Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards "
        "InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails "
        "FragCreates OutTransmits\nIp: 2 64 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        "Icmp: InMsgs InErrors InCsumErrors InDestUnreachs OutMsgs OutErrors\nIcmp: 0 0 0 0 0 0\n"
        "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs "
        "OutSegs RetransSegs InErrs OutRsts InCsumErrors\nTcp: 1 200 120000 -1 0 0 0 0 0 0 0 0 0 0 0\n"
        "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\n"
        "Udp: 0 0 0 0 0 0 0 0 0\n"
        "UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti "
        "MemErrors\nUdpLite: 0 0 0 0 0 0 0 0 0\n"
    ),
    "snmp6": "",
    "sockstat": (
        "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\nUDPLITE: inuse 0\n"
        "RAW: inuse 0\nFRAG: inuse 0 memory 0\n"
    ),
    "sockstat6": "TCP6: inuse 0\nUDP6: inuse 0\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n",
    "tcp": _INET,
    "tcp6": _INET6,
    "udp": _INET_DATAGRAM,
    "udp6": _INET6_DATAGRAM,
    "udplite": _INET_DATAGRAM,
    "udplite6": _INET6_DATAGRAM,
    "unix": "Num       RefCount Protocol Flags    Type St Inode Path\n",
    "wireless": (
        "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n"
        " face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n"
    ),
}
"""What each file says when there is nothing to tell."""


class NetworkTables(Protocol):
    """What a network stack tells /proc. The kernel holds one as ``network_tables``."""

    def render(self, name: str) -> str | None:
        """Gives the whole text of ``/proc/net/NAME``, header included; ``None`` to show the empty table."""


def render_network_file(about: tuple[Subject, str]) -> str:
    """Renders one file of /proc/PID/net."""
    subject, name = about
    tables: NetworkTables | None = getattr(subject.kernel, "network_tables", None)
    text = tables.render(name) if tables is not None else None
    return NETWORK_FILES[name] if text is None else text
