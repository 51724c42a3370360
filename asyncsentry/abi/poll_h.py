"""poll.h and sys/select.h: layouts of the descriptors poll(2) and select(2) are asked about."""

from struct import Struct

POLLFD = Struct("<ihh")
"""``struct pollfd``: fd, events, revents."""
FD_SETSIZE = 1024
TIMESPEC = Struct("<qq")
TIMEVAL = Struct("<qq")
SIGSET_ARGUMENT = Struct("<QQ")
"""What pselect6(2)'s last argument points to: address and size of a signal set."""
SIGSET_SIZE = 8
