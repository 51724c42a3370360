"""Who a thread is: user and group IDs, supplementary groups, capability sets. See credentials(7), capabilities(7)."""

from __future__ import annotations

from typing import NamedTuple

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_SETGID, CAP_SETUID = range(8)
CAP_SETPCAP, CAP_LINUX_IMMUTABLE, CAP_NET_BIND_SERVICE, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_NET_RAW = range(8, 14)
CAP_IPC_LOCK, CAP_IPC_OWNER, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_CHROOT, CAP_SYS_PTRACE = range(14, 20)
CAP_SYS_PACCT, CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYS_NICE, CAP_SYS_RESOURCE, CAP_SYS_TIME = range(20, 26)
CAP_SYS_TTY_CONFIG, CAP_MKNOD, CAP_LEASE, CAP_AUDIT_WRITE, CAP_AUDIT_CONTROL, CAP_SETFCAP = range(26, 32)
CAP_MAC_OVERRIDE, CAP_MAC_ADMIN, CAP_SYSLOG, CAP_WAKE_ALARM, CAP_BLOCK_SUSPEND, CAP_AUDIT_READ = range(32, 38)
CAP_PERFMON, CAP_BPF, CAP_CHECKPOINT_RESTORE = range(38, 41)
CAP_LAST_CAP = CAP_CHECKPOINT_RESTORE
ALL_CAPABILITIES = (1 << (CAP_LAST_CAP + 1)) - 1


class Credentials(NamedTuple):
    """An immutable set of identities: changing one makes a new object, so sharing is safe."""

    ruid: int = 0
    euid: int = 0
    suid: int = 0
    fsuid: int = 0
    rgid: int = 0
    egid: int = 0
    sgid: int = 0
    fsgid: int = 0
    groups: tuple[int, ...] = ()
    permitted: int = ALL_CAPABILITIES
    effective: int = ALL_CAPABILITIES
    inheritable: int = 0
    bounding: int = ALL_CAPABILITIES
    ambient: int = 0
    securebits: int = 0
    no_new_privs: bool = False

    @classmethod
    def for_user(cls, uid: int, gid: int, groups: tuple[int, ...] = ()) -> Credentials:
        """Gives what a login as this user has: every capability for root, none for others."""
        capabilities = ALL_CAPABILITIES if uid == 0 else 0
        return cls(uid, uid, uid, uid, gid, gid, gid, gid, groups, capabilities, capabilities)

    def has(self, capability: int) -> bool:
        """Whether a capability is effective."""
        return bool(self.effective >> capability & 1)

    def in_group(self, gid: int) -> bool:
        """Whether file access counts the thread as a member of the group."""
        return gid == self.fsgid or gid in self.groups

    def change(self, **fields: object) -> Credentials:
        """Gives a copy with some fields changed."""
        return self._replace(**fields)  # type: ignore[arg-type]  # keyword mappings cannot be typed
