"""Changing capability sets: capset(2), the bounding and ambient sets, securebits. See capabilities(7).

As in ``ids.py``, functions take credentials and give new ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.errnos import EINVAL, EPERM
from asyncsentry.tasks.credentials import ALL_CAPABILITIES, CAP_LAST_CAP, CAP_SETPCAP
from asyncsentry.tasks.ids import SECBIT_KEEP_CAPS, SECBIT_KEEP_CAPS_LOCKED, SECBIT_NO_CAP_AMBIENT_RAISE

if TYPE_CHECKING:
    from asyncsentry.tasks.credentials import Credentials

_SECURE_BITS = 0x55
_SECURE_LOCKS = 0xAA


def set_capabilities(old: Credentials, effective: int, permitted: int, inheritable: int) -> Credentials:
    """capset(2): no set may grow beyond what the others allow."""
    effective, permitted, inheritable = (bits & ALL_CAPABILITIES for bits in (effective, permitted, inheritable))
    if inheritable & ~(old.inheritable | old.permitted) and not old.has(CAP_SETPCAP):
        raise EPERM("inheritable capabilities beyond the permitted ones")
    if inheritable & ~(old.inheritable | old.bounding):
        raise EPERM("inheritable capabilities beyond the bounding set")
    if permitted & ~old.permitted:
        raise EPERM("permitted capabilities cannot be gained")
    if effective & ~permitted:
        raise EPERM("effective capabilities beyond the permitted ones")
    return old.change(effective=effective, permitted=permitted, inheritable=inheritable,
                      ambient=old.ambient & permitted & inheritable)


def drop_bounding(old: Credentials, capability: int) -> Credentials:
    """PR_CAPBSET_DROP: EPERM, then EINVAL."""
    if not old.has(CAP_SETPCAP):
        raise EPERM("only CAP_SETPCAP shrinks the bounding set")
    return old.change(bounding=old.bounding & ~capability_bit(capability))


def raise_ambient(old: Credentials, capability: int) -> Credentials:
    """PR_CAP_AMBIENT_RAISE: only what is permitted and inheritable, unless a secure bit forbids it."""
    bit = capability_bit(capability)
    if not old.permitted & old.inheritable & bit or old.securebits & SECBIT_NO_CAP_AMBIENT_RAISE:
        raise EPERM(f"capability {capability} is not permitted and inheritable")
    return old.change(ambient=old.ambient | bit)


def set_keep_capabilities(old: Credentials, keep: bool) -> Credentials:
    """PR_SET_KEEPCAPS."""
    if old.securebits & SECBIT_KEEP_CAPS_LOCKED:
        raise EPERM("the bit is locked")
    bits = old.securebits & ~SECBIT_KEEP_CAPS
    return old.change(securebits=bits | SECBIT_KEEP_CAPS if keep else bits)


def set_securebits(old: Credentials, bits: int) -> Credentials:
    """PR_SET_SECUREBITS: locked bits stay, locks cannot be taken off."""
    changed = old.securebits ^ bits
    locked = (old.securebits & _SECURE_LOCKS) >> 1
    if (locked & changed or old.securebits & _SECURE_LOCKS & ~bits or bits & ~(_SECURE_BITS | _SECURE_LOCKS)
            or not old.has(CAP_SETPCAP)):
        raise EPERM("secure bits may not be changed so")
    return old.change(securebits=bits)


def capability_bit(capability: int) -> int:
    """Gives a capability's bit in a set; EINVAL if there is no such capability."""
    if not 0 <= capability <= CAP_LAST_CAP:
        raise EINVAL(f"no capability {capability}")
    return 1 << capability
