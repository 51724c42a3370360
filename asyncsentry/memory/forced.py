"""Reading and writing guest memory whatever its protection: what debuggers may do, ptrace(2) PTRACE_POKEDATA.

Like Linux's FOLL_FORCE: pages lose their protection for the moment of the copy, and a write to a private mapping
of a file makes the page the process's own, as a breakpoint in program text does.
"""

from __future__ import annotations

from asyncsentry.abi import mman_h as abi
from asyncsentry.errnos import EIO
from asyncsentry.memory.layout import page_up
from asyncsentry.memory.manager import MemoryManager
from asyncsentry.memory.vma import VM_PLATFORM, Vma
from asyncsentry.platforms.base import PAGE_SIZE, Context, HostCall


async def read_forced(memory: MemoryManager, context: Context, address: int, count: int) -> bytes:
    """Copies memory out; EIO unless all of it is mapped. ``context`` is a trapped one of that memory."""
    areas = _areas(memory, address, count)
    locked = [vma for vma in areas if not vma.prot & abi.PROT_READ and not vma.flags & VM_PLATFORM]
    await _protect(memory, context, locked, address, count, abi.PROT_READ)
    try:
        return memory.read(address, count)
    finally:
        await _protect(memory, context, locked, address, count, None)


async def write_forced(memory: MemoryManager, context: Context, address: int, data: bytes) -> None:
    """Copies data in; EIO unless all of it is mapped and could ever be written."""
    areas = _areas(memory, address, len(data))
    locked = [vma for vma in areas if not vma.prot & abi.PROT_WRITE]
    if any(vma.flags & (abi.MAP_SHARED | VM_PLATFORM) or not vma.may & abi.PROT_WRITE for vma in locked):
        raise EIO(f"memory at {address:#x} cannot be written")
    await _protect(memory, context, locked, address, len(data), abi.PROT_READ | abi.PROT_WRITE)
    try:
        memory.write(address, data)
    finally:
        await _protect(memory, context, locked, address, len(data), None)


def _areas(memory: MemoryManager, address: int, count: int) -> list[Vma]:
    if not memory.vmas.covers(address, address + count):
        raise EIO(f"nothing mapped at {address:#x}")
    return memory.vmas.overlapping(address, address + count)


async def _protect(memory: MemoryManager, context: Context, areas: list[Vma], address: int, count: int,
                   prot: int | None) -> None:
    """Gives pages of a range a protection, or (``None``) the one their areas say."""
    start, end = address & -PAGE_SIZE, page_up(address + count)
    for vma in areas:
        low, high = max(start, vma.start), min(end, vma.end)
        wanted = vma.prot if prot is None else prot
        context.queue_host_call(HostCall(abi.SYS_MPROTECT, (low, high - low, wanted)))
        await memory.flush(context)
