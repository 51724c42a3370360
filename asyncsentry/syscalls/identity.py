"""Who a thread is: user and group IDs, supplementary groups, capabilities."""

from __future__ import annotations

import struct

from asyncsentry.abi import capability_h as abi
from asyncsentry.errnos import EINVAL, EPERM
from asyncsentry.syscalls.args import Int, Pointer, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks import ids
from asyncsentry.tasks.capabilities import set_capabilities
from asyncsentry.tasks.credentials import CAP_SETGID
from asyncsentry.tasks.groups import find_thread
from asyncsentry.tasks.thread import Thread


@syscall(102)
def getuid(thread: Thread) -> int:
    """getuid(2)."""
    return thread.credentials.ruid


@syscall(104)
def getgid(thread: Thread) -> int:
    """getgid(2)."""
    return thread.credentials.rgid


@syscall(107)
def geteuid(thread: Thread) -> int:
    """geteuid(2)."""
    return thread.credentials.euid


@syscall(108)
def getegid(thread: Thread) -> int:
    """getegid(2)."""
    return thread.credentials.egid


@syscall(105, errnos="EINVAL EPERM")
def setuid(thread: Thread, uid: UInt) -> int:
    """setuid(2)."""
    ids.commit(thread, ids.set_uid(thread.credentials, uid))
    return 0


@syscall(106, errnos="EINVAL EPERM")
def setgid(thread: Thread, gid: UInt) -> int:
    """setgid(2)."""
    ids.commit(thread, ids.set_gid(thread.credentials, gid))
    return 0


@syscall(113, errnos="EPERM")
def setreuid(thread: Thread, ruid: UInt, euid: UInt) -> int:
    """setreuid(2)."""
    ids.commit(thread, ids.set_reuid(thread.credentials, ruid, euid))
    return 0


@syscall(114, errnos="EPERM")
def setregid(thread: Thread, rgid: UInt, egid: UInt) -> int:
    """setregid(2)."""
    ids.commit(thread, ids.set_regid(thread.credentials, rgid, egid))
    return 0


@syscall(117, errnos="EPERM")
def setresuid(thread: Thread, ruid: UInt, euid: UInt, suid: UInt) -> int:
    """setresuid(2)."""
    ids.commit(thread, ids.set_resuid(thread.credentials, ruid, euid, suid))
    return 0


@syscall(119, errnos="EPERM")
def setresgid(thread: Thread, rgid: UInt, egid: UInt, sgid: UInt) -> int:
    """setresgid(2)."""
    ids.commit(thread, ids.set_resgid(thread.credentials, rgid, egid, sgid))
    return 0


@syscall(118, errnos="EFAULT")
def getresuid(thread: Thread, ruid: Pointer, euid: Pointer, suid: Pointer) -> int:
    """getresuid(2)."""
    credentials, memory = thread.credentials, thread.memory
    memory.write_u32(ruid, credentials.ruid)
    memory.write_u32(euid, credentials.euid)
    memory.write_u32(suid, credentials.suid)
    return 0


@syscall(120, errnos="EFAULT")
def getresgid(thread: Thread, rgid: Pointer, egid: Pointer, sgid: Pointer) -> int:
    """getresgid(2)."""
    credentials, memory = thread.credentials, thread.memory
    memory.write_u32(rgid, credentials.rgid)
    memory.write_u32(egid, credentials.egid)
    memory.write_u32(sgid, credentials.sgid)
    return 0


@syscall(122)
def setfsuid(thread: Thread, uid: UInt) -> int:
    """setfsuid(2): always gives the previous one."""
    previous = thread.credentials
    if (new := ids.set_fsuid(previous, uid)) is not previous:
        ids.commit(thread, new)
    return previous.fsuid


@syscall(123)
def setfsgid(thread: Thread, gid: UInt) -> int:
    """setfsgid(2): always gives the previous one."""
    previous = thread.credentials
    if (new := ids.set_fsgid(previous, gid)) is not previous:
        ids.commit(thread, new)
    return previous.fsgid


@syscall(115, errnos="EFAULT EINVAL")
def getgroups(thread: Thread, size: Int, groups: Pointer) -> int:
    """getgroups(2): EINVAL for a list that is too small, then EFAULT."""
    present = thread.credentials.groups
    if size < 0 or 0 < size < len(present):
        raise EINVAL("the list is too small")
    if size:
        thread.memory.write(groups, struct.pack(f"<{len(present)}I", *present))
    return len(present)


@syscall(116, errnos="EFAULT EINVAL EPERM")
def setgroups(thread: Thread, size: UInt, groups: Pointer) -> int:
    """setgroups(2): EPERM, EINVAL, EFAULT."""
    if not thread.credentials.has(CAP_SETGID):
        raise EPERM("only CAP_SETGID sets groups")
    if size > ids.NGROUPS_MAX:
        raise EINVAL("too many groups")
    listed = struct.unpack(f"<{size}I", thread.memory.read(groups, size * 4))
    if ids.KEEP in listed:
        raise EINVAL("-1 is no group")
    thread.credentials = thread.credentials.change(groups=tuple(sorted(listed)))
    return 0


@syscall(125, errnos="EFAULT EINVAL ESRCH")
def capget(thread: Thread, header: Pointer, data: Pointer) -> int:
    """capget(2): EFAULT, EINVAL for the version (the one we prefer is written back), ESRCH."""
    words, pid = _read_header(thread, header, probe=not data)
    if words is None:
        return 0
    if pid < 0:
        raise EINVAL("not a pid")
    credentials = find_thread(thread, pid).credentials
    if not data:
        return 0
    sets = (credentials.effective, credentials.permitted, credentials.inheritable)
    rows = [abi.CAP_USER_DATA.pack(*(bits >> 32 * word & 0xFFFFFFFF for bits in sets)) for word in range(words)]
    thread.memory.write(data, b"".join(rows))
    return 0


@syscall(126, errnos="EFAULT EINVAL EPERM")
def capset(thread: Thread, header: Pointer, data: Pointer) -> int:
    """capset(2): EFAULT, EINVAL for the version, EPERM for another thread, EFAULT, then EPERM."""
    words, pid = _read_header(thread, header, probe=False)
    if words is None:
        raise EINVAL("unknown version")
    if pid not in (0, thread.tid):
        raise EPERM("only the caller's own capabilities can be set")
    rows = list(abi.CAP_USER_DATA.iter_unpack(thread.memory.read(data, words * abi.CAP_USER_DATA.size)))
    effective, permitted, inheritable = (
        sum(row[index] << 32 * word for word, row in enumerate(rows)) for index in range(3))
    ids.commit(thread, set_capabilities(thread.credentials, effective, permitted, inheritable))
    return 0


def _read_header(thread: Thread, header: int, probe: bool) -> tuple[int | None, int]:
    """Reads version and pid; a probe for the version with an unknown one is no error."""
    version, pid = thread.memory.read_struct(header, abi.CAP_USER_HEADER)
    words = abi.VFS_CAP_WORDS.get(version)
    if words is None:
        thread.memory.write_u32(header, abi.LINUX_CAPABILITY_VERSION_3)
        if not probe:
            raise EINVAL(f"unknown version {version:#x}")
    return words, pid
