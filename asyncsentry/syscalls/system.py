"""What the system says of itself: names, memory and load, random bytes, the kernel's log."""

from __future__ import annotations

import os

from asyncsentry.abi import utsname_h
from asyncsentry.errnos import EINVAL, EPERM
from asyncsentry.syscalls.args import Buffer, Flags, Int, Pointer, Size
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.credentials import CAP_SYS_ADMIN
from asyncsentry.tasks.thread import Thread

SYSNAME = "Linux"
RELEASE = "6.12.0-asyncsentry"
VERSION = "#1 SMP PREEMPT_DYNAMIC"
MACHINE = "x86_64"
_RANDOM_CHUNK = 1 << 20
GRND_NONBLOCK, GRND_RANDOM, GRND_INSECURE = 1, 2, 4


@syscall(63, errnos="EFAULT")
def uname(thread: Thread, buffer: Pointer) -> int:
    """uname(2)."""
    kernel = thread.kernel
    fields = (SYSNAME, kernel.hostname, RELEASE, VERSION, MACHINE, kernel.domainname)
    data = b"".join(os.fsencode(field)[: utsname_h.NAME_MAX].ljust(utsname_h.FIELD_SIZE, b"\0") for field in fields)
    thread.memory.write(buffer, data)
    return 0


@syscall(170, errnos="EFAULT EINVAL EPERM")
def sethostname(thread: Thread, name: Buffer, length: Size) -> int:
    """sethostname(2): EPERM, EINVAL, EFAULT."""
    thread.kernel.hostname = _read_name(thread, name, length)
    return 0


@syscall(171, errnos="EFAULT EINVAL EPERM")
def setdomainname(thread: Thread, name: Buffer, length: Size) -> int:
    """setdomainname(2): EPERM, EINVAL, EFAULT."""
    thread.kernel.domainname = _read_name(thread, name, length)
    return 0


def _read_name(thread: Thread, address: int, length: int) -> str:
    if not thread.credentials.has(CAP_SYS_ADMIN):
        raise EPERM("only CAP_SYS_ADMIN names the system")
    length = Int((length & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)
    if not 0 <= length <= utsname_h.NAME_MAX:
        raise EINVAL("not the length of a name")
    return os.fsdecode(thread.memory.read(address, length).split(b"\0", 1)[0])


@syscall(318, errnos="EFAULT EINVAL")
def getrandom(thread: Thread, buffer: Buffer, count: Size, flags: Flags) -> int:
    """getrandom(2): never blocks; what was written before a bad address counts."""
    if flags & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) or (flags & GRND_RANDOM and flags & GRND_INSECURE):
        raise EINVAL("unknown flags")
    wanted, done = min(count, 0x7FFFF000), 0
    while done < wanted:
        chunk = thread.kernel.random.bytes(min(wanted - done, _RANDOM_CHUNK))
        written = thread.memory.write_some(buffer + done, chunk)
        done += written
        if written < len(chunk):
            break
    if wanted and not done:
        thread.memory.write(buffer, b"\0")  # raises EFAULT
    return done
