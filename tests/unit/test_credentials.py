"""Changing identities and capabilities."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_of_coroutines import A, Sandbox

from asyncsentry.abi import capability_h, prctl_h
from asyncsentry.errnos import EINVAL, EPERM
from asyncsentry.platforms.fake import FakeContext
from asyncsentry.tasks import capabilities, ids
from asyncsentry.tasks.credentials import (
    ALL_CAPABILITIES,
    CAP_CHOWN,
    CAP_KILL,
    CAP_NET_RAW,
    CAP_SETPCAP,
    CAP_SETUID,
    Credentials,
)

ROOT = Credentials()
USER = Credentials.for_user(1000, 1000)
KEEP = ids.KEEP


def uids(credentials: Credentials) -> tuple[int, int, int, int]:
    return credentials.ruid, credentials.euid, credentials.suid, credentials.fsuid


def test_root_that_becomes_a_user_loses_everything() -> None:
    user = ids.set_uid(ROOT, 7)
    assert uids(user) == (7, 7, 7, 7)
    assert user.permitted == user.effective == 0


def test_a_set_user_id_program_can_go_back_to_its_saved_id() -> None:
    program = USER.change(euid=5, suid=5, fsuid=5)
    as_user = ids.set_uid(program, 1000)
    assert uids(as_user) == (1000, 1000, 5, 1000)
    assert uids(ids.set_uid(as_user, 5)) == (1000, 5, 5, 5)
    with pytest.raises(EPERM):
        ids.set_uid(as_user, 6)
    with pytest.raises(EINVAL):
        ids.set_uid(as_user, KEEP)


def test_setreuid_swaps_and_saves() -> None:
    program = USER.change(euid=5, suid=5, fsuid=5)
    assert uids(ids.set_reuid(program, 5, 1000)) == (5, 1000, 1000, 1000)
    assert uids(ids.set_reuid(program, KEEP, 1000)) == (1000, 1000, 5, 1000)
    with pytest.raises(EPERM):
        ids.set_reuid(program, 6, KEEP)


def test_setresuid_with_a_temporary_drop_keeps_permitted_capabilities() -> None:
    dropped = ids.set_resuid(ROOT, KEEP, 1000, KEEP)
    assert dropped.effective == 0
    assert dropped.permitted == ALL_CAPABILITIES
    back = ids.set_resuid(dropped, KEEP, 0, KEEP)
    assert back.effective == ALL_CAPABILITIES


def test_keepcaps_keeps_permitted_capabilities_across_a_full_drop() -> None:
    keeping = capabilities.set_keep_capabilities(ROOT, True)
    user = ids.set_resuid(keeping, 7, 7, 7)
    assert user.permitted == ALL_CAPABILITIES
    assert user.effective == 0
    assert user.ambient == 0


def test_setfsuid_changes_only_file_capabilities() -> None:
    served = ids.set_fsuid(ROOT, 1000)
    assert served.fsuid == 1000
    assert not served.has(CAP_CHOWN)
    assert served.has(CAP_KILL)
    assert ids.set_fsuid(served, 0).has(CAP_CHOWN)
    assert ids.set_fsuid(USER, 12) is USER


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_without_capabilities_ids_only_move_among_the_present_ones(numbers: list[int]) -> None:
    ruid, euid, suid, *wanted = numbers
    old = Credentials.for_user(9, 9).change(ruid=ruid, euid=euid, suid=suid, fsuid=euid, permitted=0, effective=0)
    try:
        new = ids.set_resuid(old, *wanted)
    except EPERM:
        assert not set(wanted) <= {ruid, euid, suid}
    else:
        assert set(wanted) <= {ruid, euid, suid}
        assert uids(new) == (*wanted, wanted[1])


@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 15))
def test_capset_never_lets_a_set_grow(effective: int, permitted: int, inheritable: int) -> None:
    old = USER.change(permitted=0b0110, effective=0b0010, inheritable=0b0100, ambient=0b0100)
    try:
        new = capabilities.set_capabilities(old, effective, permitted, inheritable)
    except EPERM:
        return
    assert new.permitted & ~old.permitted == 0
    assert new.effective & ~new.permitted == 0
    assert new.ambient & ~(new.permitted & new.inheritable) == 0


def test_ambient_capabilities_must_be_permitted_and_inheritable() -> None:
    with pytest.raises(EPERM):
        capabilities.raise_ambient(ROOT, CAP_NET_RAW)
    ready = ROOT.change(inheritable=1 << CAP_NET_RAW)
    assert capabilities.raise_ambient(ready, CAP_NET_RAW).ambient == 1 << CAP_NET_RAW
    with pytest.raises(EINVAL):
        capabilities.raise_ambient(ready, 41)


def test_locked_secure_bits_stay() -> None:
    locked = capabilities.set_securebits(ROOT, ids.SECBIT_KEEP_CAPS | ids.SECBIT_KEEP_CAPS_LOCKED)
    with pytest.raises(EPERM):
        capabilities.set_keep_capabilities(locked, False)
    with pytest.raises(EPERM):
        capabilities.set_securebits(locked, 0)
    with pytest.raises(EPERM):
        capabilities.set_securebits(ROOT.change(effective=ALL_CAPABILITIES & ~(1 << CAP_SETPCAP)), 1)


async def test_capget_tells_the_version_it_prefers_and_capset_drops_what_capget_gave() -> None:
    async def program(guest: FakeContext) -> None:
        guest.memory.write(A, capability_h.CAP_USER_HEADER.pack(0, 0))
        assert await guest.syscall(125, A, 0) == 0
        version = struct.unpack("<I", guest.memory.read(A, 4))[0]
        assert version == capability_h.LINUX_CAPABILITY_VERSION_3
        assert await guest.syscall(125, A, A + 64) == 0
        assert guest.memory.read(A + 64, 4) == b"\xff\xff\xff\xff"
        guest.memory.write(A + 64, struct.pack("<6I", 1 << CAP_SETUID, 1 << CAP_SETUID, 0, 0, 0, 0))
        assert await guest.syscall(126, A, A + 64) == 0
        assert await guest.syscall(105, 33) == 0
        assert await guest.syscall(105, 0) == -EPERM.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0


async def test_names_and_flags_set_by_prctl_are_told_back() -> None:
    async def program(guest: FakeContext) -> None:
        guest.memory.write(A, b"a rather long name\0")
        assert await guest.syscall(157, prctl_h.PR_SET_NAME, A) == 0
        assert await guest.syscall(157, prctl_h.PR_GET_NAME, A + 64) == 0
        assert guest.memory.read(A + 64, 16) == b"a rather long n\0"
        assert await guest.syscall(157, prctl_h.PR_SET_NO_NEW_PRIVS, 0) == -EINVAL.errno
        assert await guest.syscall(157, prctl_h.PR_SET_NO_NEW_PRIVS, 1) == 0
        assert await guest.syscall(157, prctl_h.PR_GET_NO_NEW_PRIVS) == 1
        assert await guest.syscall(157, prctl_h.PR_GET_DUMPABLE) == 1
        assert await guest.syscall(105, 33) == 0
        assert await guest.syscall(157, prctl_h.PR_GET_DUMPABLE) == 0
        assert await guest.syscall(157, 12345) == -EINVAL.errno

    async with Sandbox() as sandbox:
        assert await sandbox.run(program) == 0
