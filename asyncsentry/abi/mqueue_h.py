"""POSIX message queues: linux/mqueue.h, mq_overview(7)."""

from __future__ import annotations

from struct import Struct

MQ_PRIO_MAX = 32768
MQ_ATTR = Struct("<qqqq32x")
"""flags, maxmsg, msgsize, curmsgs, four reserved words."""
HARD_MSGMAX = 65536
HARD_MSGSIZEMAX = 1 << 24
MESSAGE_OVERHEAD = 48 + 48
"""What RLIMIT_MSGQUEUE counts per message beside its size: struct msg_msg and a tree node."""
