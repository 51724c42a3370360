"""Constants of <sys/wait.h> and the parts of siginfo that waitid(2) fills."""

import struct

WNOHANG = 0x00000001
WUNTRACED = WSTOPPED = 0x00000002
WEXITED = 0x00000004
WCONTINUED = 0x00000008
WNOWAIT = 0x01000000
WNOTHREAD = 0x20000000
"""__WNOTHREAD: only children of the calling thread."""
WALL = 0x40000000
"""__WALL: children of either kind."""
WCLONE = 0x80000000
"""__WCLONE: only children whose exit signal is not SIGCHLD."""

P_ALL, P_PID, P_PGID, P_PIDFD = range(4)

CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_TRAPPED, CLD_STOPPED, CLD_CONTINUED = range(1, 7)

STATUS_CONTINUED = 0xFFFF
STATUS_CORE = 0x80

SIGINFO_CHILD = struct.Struct("<iiiiiIi")
"""The head of siginfo_t for SIGCHLD: signo, errno, code, padding, pid, uid, status."""
