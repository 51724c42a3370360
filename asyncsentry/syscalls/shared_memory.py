"""System V shared memory and memfds: shmget(2), shmat(2), shmdt(2), shmctl(2), memfd_create(2)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncsentry.abi import ipc_h as abi
from asyncsentry.abi import mman_h as mman
from asyncsentry.errnos import EINVAL, ENAMETOOLONG, ENOENT, EPERM
from asyncsentry.fs.inode import Owner
from asyncsentry.fs.tmpfs import memfd_file
from asyncsentry.memory.layout import page_up
from asyncsentry.memory.mapping import Mapping, mmap
from asyncsentry.memory.vma import Vma
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX, PAGE_SIZE
from asyncsentry.syscalls.args import Flags, Int, Pointer, Size
from asyncsentry.syscalls.memory import may_lock, with_implied_exec
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.shm import ShmAttachment, ShmSegment

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

_MEMFD_NAME_MAX = 249
_READ, _WRITE, _EXEC = 4, 2, 1


@syscall(29, errnos="EACCES EEXIST EINVAL ENOENT ENOMEM ENOSPC", missing="no SHM_HUGETLB")
def shmget(thread: Thread, key: Int, size: Size, flags: Flags) -> int:
    """shmget(2): finds or makes a segment."""
    table = thread.kernel.shared_memory
    return table.open(key, size, flags, thread.credentials, thread.process.pid).id


@syscall(30, errnos="EACCES EIDRM EINVAL ENOMEM")
async def shmat(thread: Thread, ident: Int, address: Pointer, flags: Flags) -> int:
    """shmat(2): the address first, then the segment, then permissions."""
    if address & (PAGE_SIZE - 1):
        if not flags & abi.SHM_RND:
            raise EINVAL("address is not a page's")
        address = Pointer(address & -PAGE_SIZE)
        if not address and flags & abi.SHM_REMAP:
            raise EINVAL("nothing to replace at address 0")
    if not address and flags & abi.SHM_REMAP:
        raise EINVAL("nothing to replace at address 0")
    segment = thread.kernel.shared_memory.get(ident)
    wanted = _READ | (0 if flags & abi.SHM_RDONLY else _WRITE) | (_EXEC if flags & abi.SHM_EXEC else 0)
    segment.check_access(thread.credentials, wanted)
    return await _attach(thread, segment, address, flags)


async def _attach(thread: Thread, segment: ShmSegment, address: int, flags: int) -> int:
    length, memory = page_up(segment.size), thread.memory
    map_flags = mman.MAP_SHARED | (mman.MAP_FIXED if address else 0)
    if address and not flags & abi.SHM_REMAP and (
        address + length > GUEST_ADDRESS_MAX or not memory.vmas.is_free(address, address + length)
    ):
        raise EINVAL("the range is in use")
    prot = mman.PROT_READ | (0 if flags & abi.SHM_RDONLY else mman.PROT_WRITE)
    if flags & abi.SHM_EXEC:
        prot |= mman.PROT_EXEC
    attachment = ShmAttachment(segment, not flags & abi.SHM_RDONLY)
    try:
        prot = with_implied_exec(thread, prot)
        request = Mapping(address, length, prot, map_flags, attachment, may_lock=may_lock(thread))
        start = await mmap(memory, thread.context, request, thread.process.limits)
    except BaseException:
        segment.attachments.discard(attachment)
        raise
    segment.attach_time = segment.table.now()
    segment.last_pid = thread.process.pid
    return start


@syscall(67, errnos="EINVAL")
async def shmdt(thread: Thread, address: Pointer) -> int:
    """shmdt(2): removes all areas that are left of one attachment."""
    memory = thread.memory
    first = memory.vmas.next_from(address)
    while first is not None and not _belongs(first, address):
        first = memory.vmas.next_from(first.end)
    if address & (PAGE_SIZE - 1) or first is None:
        raise EINVAL("nothing attached there")
    attachment = first.file
    assert isinstance(attachment, ShmAttachment)
    end = address + page_up(attachment.segment.size)
    attachment.segment.last_pid = thread.process.pid
    for vma in memory.vmas.overlapping(address, end):
        if vma.file is attachment and _belongs(vma, address):
            await memory.munmap(thread.context, vma.start, vma.size)
    return 0


def _belongs(vma: Vma, address: int) -> bool:
    """Whether an area is (part of) an attachment made at an address."""
    return isinstance(vma.file, ShmAttachment) and vma.start - vma.offset == address


@syscall(31, errnos="EACCES EFAULT EIDRM EINVAL EPERM", missing="SHM_LOCK pins nothing on the host")
def shmctl(thread: Thread, ident: Int, command: Int, buffer: Pointer) -> int:
    """shmctl(2): tells of segments, changes their owners, removes them."""
    table = thread.kernel.shared_memory
    if ident < 0 or command < 0:
        raise EINVAL("no such segment or command")
    if command in (abi.IPC_INFO, abi.SHM_INFO):
        return _write_info(thread, command, buffer)
    if command in (abi.SHM_STAT, abi.SHM_STAT_ANY, abi.IPC_STAT):
        segment = table.get(ident) if command == abi.IPC_STAT else table.by_index(ident)
        if command != abi.SHM_STAT_ANY:
            segment.check_access(thread.credentials, _READ)
        thread.memory.write(buffer, segment.pack())
        return 0 if command == abi.IPC_STAT else segment.id
    if command == abi.IPC_SET:
        fields = thread.memory.read_struct(buffer, abi.IPC_PERM)
        segment = table.get(ident)
        segment.check_owner(thread.credentials)
        segment.set_owner(fields[1], fields[2], fields[5])
        segment.change_time = table.now()
    elif command == abi.IPC_RMID:
        segment = table.get(ident)
        segment.check_owner(thread.credentials)
        table.mark_for_destruction(segment)
    elif command in (abi.SHM_LOCK, abi.SHM_UNLOCK):
        _lock(thread, table.get(ident), command == abi.SHM_LOCK)
    else:
        raise EINVAL(f"no command {command}")
    return 0


def _lock(thread: Thread, segment: ShmSegment, locked: bool) -> None:
    if not may_lock(thread) and thread.credentials.euid not in (segment.uid, segment.cuid):
        raise EPERM("not the owner's")
    segment.mode = segment.mode & ~abi.SHM_LOCKED | (abi.SHM_LOCKED if locked else 0)


def _write_info(thread: Thread, command: int, buffer: int) -> int:
    table = thread.kernel.shared_memory
    if command == abi.IPC_INFO:
        largest, pages = (table.sysctls.integer(f"kernel.shm{name}") for name in ("max", "all"))
        thread.memory.write_struct(buffer, abi.SHMINFO, largest, 1, table.limit, table.limit, pages, 0, 0, 0, 0)
    else:
        pages = sum(page_up(segment.size) // PAGE_SIZE for segment in table)
        thread.memory.write_struct(buffer, abi.SHM_INFO_STRUCT, len(table), pages, pages, 0, 0, 0)
    return table.highest_index


@syscall(319, errnos="EFAULT EINVAL EMFILE ENFILE ENOMEM EPERM", missing="no MFD_HUGETLB")
def memfd_create(thread: Thread, name: Pointer, flags: Flags) -> int:
    """memfd_create(2): flags first, then the name."""
    known = mman.MFD_CLOEXEC | mman.MFD_ALLOW_SEALING | mman.MFD_NOEXEC_SEAL | mman.MFD_EXEC
    if flags & mman.MFD_HUGETLB:
        raise ENOENT("there are no huge pages")
    if flags & ~known or (flags & mman.MFD_EXEC and flags & mman.MFD_NOEXEC_SEAL):
        raise EINVAL("unknown flags, or both executable and not")
    try:
        text = thread.memory.read_string(name, _MEMFD_NAME_MAX + 1)
    except ENAMETOOLONG as error:
        raise EINVAL("the name is too long") from error
    owner = Owner(thread.credentials.fsuid, thread.credentials.fsgid)
    file = memfd_file(thread.kernel.memfds, os.fsdecode(text), flags, owner=owner)
    return thread.fds.install(file, bool(flags & mman.MFD_CLOEXEC))
