"""The texts of /proc/PID/maps and /proc/PID/smaps, and the numbers of /proc/PID/statm, proc_pid_maps(5).

Which pages are resident only the host knows; here all that is mapped and accessible counts as resident.
"""

from __future__ import annotations

from collections.abc import Callable

from asyncsentry.abi import mman_h as abi
from asyncsentry.memory.manager import MemoryManager
from asyncsentry.memory.vma import VM_DONTDUMP, VM_DONTFORK, VM_LOCKED, VM_WIPEONFORK, MappedFile, Vma
from asyncsentry.platforms.base import PAGE_SIZE

NameOf = Callable[[MappedFile], str]
"""Gives a mapped file's path as the reader of the text sees it."""
_NAME_COLUMN = 73
_ZERO_FIELDS = (
    "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "KSM", "LazyFree",
    "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss",
)  # fmt: skip
_FLAG_NAMES = (
    (VM_LOCKED, "lo"), (abi.MAP_NORESERVE, "nr"), (abi.MAP_GROWSDOWN, "gd"), (VM_DONTFORK, "dc"),
    (VM_DONTDUMP, "dd"), (VM_WIPEONFORK, "wf"),
)  # fmt: skip


def format_maps(memory: MemoryManager, name_of: NameOf) -> str:
    """Gives the text of /proc/PID/maps."""
    return "".join(_line(vma, name_of) for vma in memory.vmas)


def _line(vma: Vma, name_of: NameOf) -> str:
    access = "".join(
        letter if vma.prot & bit else "-"
        for bit, letter in ((abi.PROT_READ, "r"), (abi.PROT_WRITE, "w"), (abi.PROT_EXEC, "x"))
    ) + ("s" if vma.flags & abi.MAP_SHARED else "p")  # fmt: skip
    device, inode, name = 0, 0, vma.name
    if vma.file is not None:
        if vma.file.inode is not None:
            attributes = vma.file.inode.stat()
            device, inode = attributes.dev, attributes.ino
        name = name_of(vma.file).replace("\n", "\\012")
    major, minor = device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00
    start = f"{vma.start:08x}-{vma.end:08x} {access} {vma.offset:08x} {major:02x}:{minor:02x} {inode} "
    return (start.ljust(_NAME_COLUMN) + name if name else start) + "\n"


def format_smaps(memory: MemoryManager, name_of: NameOf) -> str:
    """Gives the text of /proc/PID/smaps."""
    return "".join(_line(vma, name_of) + _details(vma) for vma in memory.vmas)


def format_smaps_rollup(memory: MemoryManager) -> str:
    """Gives the text of /proc/PID/smaps_rollup."""
    areas = list(memory.vmas)
    low, high = (areas[0].start, areas[-1].end) if areas else (0, 0)
    resident = sum(map(resident_bytes, areas)) // 1024
    rows = [f"{low:08x}-{high:08x} ---p 00000000 00:00 0 ".ljust(_NAME_COLUMN) + "[rollup]"]
    rows += [_row("Rss", resident), _row("Pss", resident)]
    rows += [_row(name, 0) for name in _ZERO_FIELDS]
    rows.append(_row("Locked", memory.locked_vm // 1024))
    return "\n".join(rows) + "\n"


def _details(vma: Vma) -> str:
    size, resident = vma.size // 1024, resident_bytes(vma) // 1024
    values = dict.fromkeys(_ZERO_FIELDS, 0)
    if vma.flags & abi.MAP_SHARED:
        values["Shared_Clean"] = resident
    else:
        values["Private_Dirty" if vma.file is None else "Private_Clean"] = resident
        values["Anonymous"] = resident if vma.file is None else 0
    values["Referenced"] = resident
    rows = [_row("Size", size), _row("KernelPageSize", 4), _row("MMUPageSize", 4), _row("Rss", resident),
            _row("Pss", resident)]  # fmt: skip
    rows += [_row(name, value) for name, value in values.items()]
    rows.append(_row("Locked", size if vma.flags & VM_LOCKED else 0))
    rows.append("THPeligible:           0")
    rows.append("VmFlags: " + " ".join(_flag_names(vma)) + " ")
    return "\n".join(rows) + "\n"


def _row(name: str, kilobytes: int) -> str:
    return f"{name + ':':<16}{kilobytes:8} kB"


def _flag_names(vma: Vma) -> list[str]:
    names = [name for bit, name in ((1, "rd"), (2, "wr"), (4, "ex")) if vma.prot & bit]
    if vma.flags & abi.MAP_SHARED:
        names.append("sh")
    names += [name for bit, name in ((1, "mr"), (2, "mw"), (4, "me")) if vma.may & bit]
    if vma.flags & abi.MAP_SHARED:
        names.append("ms")
    return names + [name for bit, name in _FLAG_NAMES if vma.flags & bit]


def resident_bytes(vma: Vma) -> int:
    """Gives what counts as resident of an area."""
    if not vma.prot or vma.flags & abi.MAP_NORESERVE:
        return 0
    return vma.size


def statm(memory: MemoryManager) -> tuple[int, int, int, int, int, int, int]:
    """Gives /proc/PID/statm's numbers in pages: size, resident, shared, text, 0, data, 0."""
    resident = shared = data = 0
    for vma in memory.vmas:
        size = resident_bytes(vma)
        resident += size
        if vma.file is not None:
            shared += size
        elif vma.prot & abi.PROT_WRITE:
            data += vma.size
    text = (memory.end_code - memory.start_code + PAGE_SIZE - 1) // PAGE_SIZE
    return memory.total_vm // PAGE_SIZE, resident // PAGE_SIZE, shared // PAGE_SIZE, text, 0, data // PAGE_SIZE, 0
