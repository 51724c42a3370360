"""System calls on a process's own memory: mmap(2), mprotect(2), mremap(2), brk(2), madvise(2), mlock(2) and kin."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from asyncsentry.abi import mman_h as abi
from asyncsentry.abi.mount_h import MS_NOEXEC
from asyncsentry.errnos import EBADF, EINVAL, ENOMEM, ENOSPC
from asyncsentry.fs.file import O_PATH, File
from asyncsentry.memory import advice as advices
from asyncsentry.memory.layout import page_up
from asyncsentry.memory.mapping import Mapping, begin_mmap
from asyncsentry.memory.remap import Remap
from asyncsentry.memory.remap import mremap as remap
from asyncsentry.platforms.base import PAGE_SIZE
from asyncsentry.syscalls.args import Fd, Flags, Int, Pointer, Size, UInt
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.credentials import CAP_IPC_LOCK

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

_NO_OFFSET = Size(0)
_READ_IMPLIES_EXEC = 0x0400000
_MINCORE_CHUNK = 1 << 20
_PKEY_NONE = -1


def may_lock(thread: Thread) -> bool:
    """Whether RLIMIT_MEMLOCK does not bind the thread."""
    return thread.credentials.has(CAP_IPC_LOCK)


def is_noexec(file: File | None) -> bool:
    """Whether a file was reached through a noexec mount."""
    return file is not None and file.location is not None and bool(file.location.mount.flags & MS_NOEXEC)


def with_implied_exec(thread: Thread, prot: int, file: File | None = None) -> int:
    """Adds PROT_EXEC to PROT_READ for programs with the READ_IMPLIES_EXEC personality."""
    if thread.personality & _READ_IMPLIES_EXEC and prot & abi.PROT_READ and not is_noexec(file):
        return prot | abi.PROT_EXEC
    return prot


@syscall(9, errnos="EACCES EAGAIN EBADF EEXIST EINVAL ENODEV ENOMEM EOPNOTSUPP EOVERFLOW EPERM",
         missing="MAP_HUGETLB finds no huge pages; MAP_SYNC needs a DAX file, of which there are none")
def mmap(thread: Thread, address: Pointer, length: Size, prot: Size, flags: Flags, fd: Fd,
         offset: Size) -> int | Awaitable[int]:
    """mmap(2): offset first, then the descriptor, then everything else."""
    if offset & (PAGE_SIZE - 1):
        raise EINVAL("offset is not a page's")
    file = None
    if not flags & abi.MAP_ANONYMOUS:
        file = thread.fds.get(fd)
        if file.flags & O_PATH:
            raise EBADF("opened with O_PATH")
        if flags & abi.MAP_HUGETLB:
            raise EINVAL("not a file of huge pages")
    elif flags & abi.MAP_HUGETLB:
        raise ENOMEM("there are no huge pages")
    else:
        offset = _NO_OFFSET
    if thread.personality:
        prot = Size(with_implied_exec(thread, prot, file))
    no_exec = file is not None and is_noexec(file)
    request = Mapping(address, length, prot, flags, file, offset, no_exec, may_lock(thread))
    return begin_mmap(thread.memory, thread.context, request, thread.process.limits)


@syscall(11, errnos="EINVAL ENOMEM EPERM")
def munmap(thread: Thread, address: Pointer, length: Size) -> int | Awaitable[int]:
    """munmap(2): removing what is not there is no error."""
    return thread.memory.begin_munmap(thread.context, address, length)


@syscall(10, errnos="EACCES EINVAL ENOMEM EPERM")
async def mprotect(thread: Thread, address: Pointer, length: Size, prot: Size) -> int:
    """mprotect(2): changes what precedes a hole before it reports the hole."""
    await thread.memory.mprotect(thread.context, address, length, with_implied_exec(thread, prot))
    return 0


@syscall(12)
async def brk(thread: Thread, address: Pointer) -> int:
    """brk(2): gives the end of the heap, moved if it could be."""
    memory = thread.memory
    if address == memory.brk or address < memory.start_brk:
        return memory.brk
    return await memory.set_brk(thread.context, address, thread.process.limits)


@syscall(25, errnos="EAGAIN EFAULT EINVAL ENOMEM EPERM")
async def mremap(thread: Thread, old: Pointer, old_length: Size, new_length: Size, flags: Flags, new: Pointer) -> int:
    """mremap(2): grows, shrinks or moves one mapping."""
    request = Remap(old, old_length, new_length, flags, new)
    return await remap(thread.memory, thread.context, request, thread.process.limits, may_lock(thread))


@syscall(26, errnos="EBUSY EINVAL EIO ENOMEM")
async def msync(thread: Thread, address: Pointer, length: Size, flags: Flags) -> int:
    """msync(2): writes shared mappings through."""
    await advices.msync(thread.memory, thread.context, address, length, flags)
    return 0


@syscall(27, errnos="EFAULT EINVAL ENOMEM", missing="every mapped page is reported resident")
def mincore(thread: Thread, address: Pointer, length: Size, vector: Pointer) -> int:
    """mincore(2): one byte per page."""
    memory = thread.memory
    end = address + page_up(length)
    if address & (PAGE_SIZE - 1):
        raise EINVAL("not a page")
    for start in range(address, end, _MINCORE_CHUNK * PAGE_SIZE):
        part = min(end - start, _MINCORE_CHUNK * PAGE_SIZE)
        memory.write(vector + (start - address) // PAGE_SIZE, advices.mincore(memory, start, part))
    return 0


@syscall(28, errnos="EACCES EINVAL EIO ENOMEM EPERM")
async def madvise(thread: Thread, address: Pointer, length: Size, advice: Int) -> int:
    """madvise(2): what changes memory or its inheritance is done, the rest noted."""
    await advices.madvise(thread.memory, thread.context, address, length, advice)
    return 0


@syscall(149, errnos="EINVAL ENOMEM EPERM", missing="pages are accounted for and brought in, not pinned on the host")
async def mlock(thread: Thread, address: Pointer, length: Size) -> int:
    """mlock(2): locks a range."""
    await advices.mlock(
        thread.memory, thread.context, address, length, False, thread.process.limits, may_lock(thread))
    return 0


@syscall(325, errnos="EINVAL ENOMEM EPERM", missing="as mlock")
async def mlock2(thread: Thread, address: Pointer, length: Size, flags: Flags) -> int:
    """mlock2(2): locks a range, perhaps only as it is touched."""
    if flags & ~abi.MLOCK_ONFAULT:
        raise EINVAL("unknown flags")
    await advices.mlock(
        thread.memory, thread.context, address, length, bool(flags), thread.process.limits, may_lock(thread))
    return 0


@syscall(150, errnos="EINVAL ENOMEM")
async def munlock(thread: Thread, address: Pointer, length: Size) -> int:
    """munlock(2): unlocks a range."""
    await advices.munlock(thread.memory, thread.context, address, length)
    return 0


@syscall(151, errnos="EINVAL ENOMEM EPERM", missing="as mlock")
async def mlockall(thread: Thread, flags: Flags) -> int:
    """mlockall(2): locks what there is, what there will be, or both."""
    await advices.mlockall(thread.memory, thread.context, flags, thread.process.limits, may_lock(thread))
    return 0


@syscall(152)
async def munlockall(thread: Thread) -> int:
    """munlockall(2): unlocks everything."""
    await advices.munlockall(thread.memory, thread.context)
    return 0


# Protection keys: as on a processor without them, pkeys(7) ----------------------------------------


@syscall(329, errnos="EACCES EINVAL ENOMEM", missing="no protection keys: as on a processor without them")
async def pkey_mprotect(thread: Thread, address: Pointer, length: Size, prot: Size, pkey: Int) -> int:
    """pkey_mprotect(2): without a key (-1) it is mprotect(2)."""
    if pkey != _PKEY_NONE:
        raise EINVAL("there are no protection keys")
    await thread.memory.mprotect(thread.context, address, length, with_implied_exec(thread, prot))
    return 0


@syscall(330, errnos="EINVAL ENOSPC", missing="no protection keys: as on a processor without them")
def pkey_alloc(thread: Thread, flags: Size, rights: Size) -> int:
    """pkey_alloc(2): there is none to be had."""
    if flags or rights & ~(abi.PKEY_DISABLE_ACCESS | abi.PKEY_DISABLE_WRITE):
        raise EINVAL("unknown flags or rights")
    raise ENOSPC("there are no protection keys")


@syscall(331, errnos="EINVAL", missing="no protection keys: as on a processor without them")
def pkey_free(thread: Thread, pkey: UInt) -> int:
    """pkey_free(2): none was ever given out."""
    raise EINVAL("there are no protection keys")
