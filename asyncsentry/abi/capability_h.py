"""linux/capability.h: the capability numbers that file access asks for, capabilities(7)."""

import struct

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_SETGID = 6
CAP_SETUID = 7
CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_IPC_OWNER = 15
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_SYS_TTY_CONFIG = 26
CAP_MKNOD = 27
CAP_LEASE = 28
CAP_SETFCAP = 31

# capget(2) and capset(2) ---------------------------------------------------------------------------

LINUX_CAPABILITY_VERSION_1 = 0x19980330
LINUX_CAPABILITY_VERSION_2 = 0x20071026
LINUX_CAPABILITY_VERSION_3 = 0x20080522

VFS_CAP_WORDS = {LINUX_CAPABILITY_VERSION_1: 1, LINUX_CAPABILITY_VERSION_2: 2, LINUX_CAPABILITY_VERSION_3: 2}
"""How many 32-bit words each version's sets have."""

CAP_USER_HEADER = struct.Struct("<Ii")
"""struct __user_cap_header_struct: version, pid."""
CAP_USER_DATA = struct.Struct("<III")
"""struct __user_cap_data_struct, one per word: effective, permitted, inheritable."""
