"""Changing identities: the set*id(2) family, and what it does to capabilities.

Functions here take credentials and give new ones; :func:`commit` installs them. See credentials(7) and
capabilities(7), "Effect of user ID changes on capabilities".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.errnos import EINVAL, EPERM
from asyncsentry.tasks import credentials as caps

if TYPE_CHECKING:
    from asyncsentry.tasks.credentials import Credentials
    from asyncsentry.tasks.process import Process
    from asyncsentry.tasks.thread import Thread

KEEP = 0xFFFFFFFF
"""The ``-1`` that leaves an ID alone."""
NGROUPS_MAX = 65536

SECBIT_NOROOT = 1 << 0
SECBIT_NO_SETUID_FIXUP = 1 << 2
SECBIT_KEEP_CAPS = 1 << 4
SECBIT_KEEP_CAPS_LOCKED = 1 << 5
SECBIT_NO_CAP_AMBIENT_RAISE = 1 << 6

FILE_CAPABILITIES = sum(1 << capability for capability in (
    caps.CAP_CHOWN, caps.CAP_MKNOD, caps.CAP_DAC_OVERRIDE, caps.CAP_DAC_READ_SEARCH, caps.CAP_FOWNER, caps.CAP_FSETID,
    caps.CAP_LINUX_IMMUTABLE, caps.CAP_MAC_OVERRIDE))  # fmt: skip
"""What follows the file system user ID, Linux's CAP_FS_SET."""


def commit(thread: Thread, new: Credentials) -> None:
    """Gives a thread new credentials; a change that may hide secrets makes its process undumpable, prctl(2)."""
    old, thread.credentials = thread.credentials, new
    if ((old.euid, old.egid, old.fsuid, old.fsgid) != (new.euid, new.egid, new.fsuid, new.fsgid)
            or new.permitted & ~old.permitted):
        thread.process.dumpable = 0
        thread.parent_death_signal = 0


def set_uid(old: Credentials, uid: int) -> Credentials:
    """setuid(2)."""
    if uid == KEEP:
        raise EINVAL("-1 is no user")
    if old.has(caps.CAP_SETUID):
        return fix_capabilities(old, old.change(ruid=uid, euid=uid, suid=uid, fsuid=uid))
    if uid not in (old.ruid, old.suid):
        raise EPERM(f"user {uid} is not the caller's")
    return fix_capabilities(old, old.change(euid=uid, fsuid=uid))


def set_reuid(old: Credentials, ruid: int, euid: int) -> Credentials:
    """setreuid(2)."""
    if not old.has(caps.CAP_SETUID):
        _check(ruid, (old.ruid, old.euid))
        _check(euid, (old.ruid, old.euid, old.suid))
    new_ruid, new_euid = _pick(ruid, old.ruid), _pick(euid, old.euid)
    saves = ruid != KEEP or (euid != KEEP and euid != old.ruid)
    suid = new_euid if saves else old.suid
    return fix_capabilities(old, old.change(ruid=new_ruid, euid=new_euid, suid=suid, fsuid=new_euid))


def set_resuid(old: Credentials, ruid: int, euid: int, suid: int) -> Credentials:
    """setresuid(2)."""
    if not old.has(caps.CAP_SETUID):
        for uid in (ruid, euid, suid):
            _check(uid, (old.ruid, old.euid, old.suid))
    new_euid = _pick(euid, old.euid)
    return fix_capabilities(old, old.change(
        ruid=_pick(ruid, old.ruid), euid=new_euid, suid=_pick(suid, old.suid), fsuid=new_euid))  # fmt: skip


def set_fsuid(old: Credentials, uid: int) -> Credentials:
    """setfsuid(2): unchanged credentials where it may not."""
    if uid == KEEP or (uid not in (old.ruid, old.euid, old.suid, old.fsuid) and not old.has(caps.CAP_SETUID)):
        return old
    effective = old.effective
    if not old.securebits & SECBIT_NO_SETUID_FIXUP:
        if old.fsuid == 0 and uid != 0:
            effective &= ~FILE_CAPABILITIES
        elif old.fsuid != 0 and uid == 0:
            effective |= old.permitted & FILE_CAPABILITIES
    return old.change(fsuid=uid, effective=effective)


def set_gid(old: Credentials, gid: int) -> Credentials:
    """setgid(2)."""
    if gid == KEEP:
        raise EINVAL("-1 is no group")
    if old.has(caps.CAP_SETGID):
        return old.change(rgid=gid, egid=gid, sgid=gid, fsgid=gid)
    if gid not in (old.rgid, old.sgid):
        raise EPERM(f"group {gid} is not the caller's")
    return old.change(egid=gid, fsgid=gid)


def set_regid(old: Credentials, rgid: int, egid: int) -> Credentials:
    """setregid(2)."""
    if not old.has(caps.CAP_SETGID):
        _check(rgid, (old.rgid, old.egid))
        _check(egid, (old.rgid, old.egid, old.sgid))
    new_rgid, new_egid = _pick(rgid, old.rgid), _pick(egid, old.egid)
    saves = rgid != KEEP or (egid != KEEP and egid != old.rgid)
    return old.change(rgid=new_rgid, egid=new_egid, sgid=new_egid if saves else old.sgid, fsgid=new_egid)


def set_resgid(old: Credentials, rgid: int, egid: int, sgid: int) -> Credentials:
    """setresgid(2)."""
    if not old.has(caps.CAP_SETGID):
        for gid in (rgid, egid, sgid):
            _check(gid, (old.rgid, old.egid, old.sgid))
    new_egid = _pick(egid, old.egid)
    return old.change(rgid=_pick(rgid, old.rgid), egid=new_egid, sgid=_pick(sgid, old.sgid), fsgid=new_egid)


def set_fsgid(old: Credentials, gid: int) -> Credentials:
    """setfsgid(2): unchanged credentials where it may not."""
    if gid == KEEP or (gid not in (old.rgid, old.egid, old.sgid, old.fsgid) and not old.has(caps.CAP_SETGID)):
        return old
    return old.change(fsgid=gid)


def fix_capabilities(old: Credentials, new: Credentials) -> Credentials:
    """Drops or raises capabilities as user IDs leave or become 0, Linux's cap_emulate_setxuid()."""
    if old.securebits & SECBIT_NO_SETUID_FIXUP:
        return new
    permitted, effective, ambient = new.permitted, new.effective, new.ambient
    if 0 in (old.ruid, old.euid, old.suid) and 0 not in (new.ruid, new.euid, new.suid):
        ambient = 0
        if not old.securebits & SECBIT_KEEP_CAPS:
            permitted = effective = 0
    if old.euid == 0 and new.euid != 0:
        effective = 0
    elif old.euid != 0 and new.euid == 0:
        effective = permitted
    return new.change(permitted=permitted, effective=effective, ambient=ambient)


def check_may_attach(thread: Thread, process: Process) -> None:
    """EPERM unless the caller may look into a process, ptrace(2) "Ptrace access mode checking" with real IDs."""
    if process is thread.process:
        return
    caller, target = thread.credentials, process.credentials
    if caller.has(caps.CAP_SYS_PTRACE):
        return
    same_user = {target.ruid, target.euid, target.suid} == {caller.ruid}
    same_group = {target.rgid, target.egid, target.sgid} == {caller.rgid}
    if not (same_user and same_group) or process.dumpable != 1 or target.permitted & ~caller.permitted:
        raise EPERM(f"process {process.pid} may not be looked into")


def _check(number: int, allowed: tuple[int, ...]) -> None:
    if number != KEEP and number not in allowed:
        raise EPERM(f"{number} is not among the caller's identities")


def _pick(wanted: int, present: int) -> int:
    return present if wanted == KEEP else wanted
