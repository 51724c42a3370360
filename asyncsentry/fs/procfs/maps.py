"""/proc/PID/maps, smaps and smaps_rollup: the areas of a process' memory. See proc_pid_maps(5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asyncsentry.fs.path import path_of
from asyncsentry.fs.procfs.base import Subject, kib
from asyncsentry.fs.procfs.memory import resident_bytes

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_SHARED = 1
NAME_COLUMN = 73

_SMAPS_FIELDS = (
    "Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced",
    "Anonymous", "KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb",
    "Private_Hugetlb", "Swap", "SwapPss", "Locked",
)  # fmt: skip


def _escape(name: str) -> str:
    return name.replace("\n", "\\012")


def area_name(vma: Any, root: Any) -> str:
    """Gives the last column: a path as the process sees it, ``[heap]``, or nothing."""
    if vma.file is None:
        return str(vma.name)
    if vma.file.location is not None:
        return _escape(path_of(vma.file.location, root))
    return _escape(vma.file.describe())


def format_area(vma: Any, root: Any) -> str:
    """Gives the line of one area."""
    letters = "".join(letter if vma.prot & bit else "-" for letter, bit in zip("rwx", (1, 2, 4), strict=True))
    sharing = "s" if vma.flags & MAP_SHARED else "p"
    device = ino = 0
    if vma.file is not None and vma.file.inode is not None:
        stat = vma.file.inode.stat()
        device, ino = stat.dev, stat.ino
    major, minor = device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00
    head = f"{vma.start:08x}-{vma.end:08x} {letters}{sharing} {vma.offset:08x} {major:02x}:{minor:02x} {ino} "
    name = area_name(vma, root)
    return f"{head.ljust(NAME_COLUMN)}{name}\n" if name else f"{head}\n"


def _areas(subject: Subject) -> Iterator[tuple[Any, str]]:
    thread = subject.thread
    if thread is None:
        return
    root = thread.fs.root
    for vma in thread.memory.vmas:
        yield vma, format_area(vma, root)


def render_maps(subject: Subject) -> str:
    """Renders /proc/PID/maps."""
    return "".join(line for _, line in _areas(subject))


def render_smaps(subject: Subject) -> str:
    """Renders /proc/PID/smaps.

    What is resident is known for the whole process only; it is spread over the areas by their size.
    """
    memory = subject.memory
    if memory is None:
        return ""
    total = sum(vma.end - vma.start for vma in memory.vmas) or 1
    resident = min(resident_bytes(memory), total)
    text = []
    for vma, line in _areas(subject):
        size = vma.end - vma.start
        share = size * resident // total & ~0xFFF
        text.append(f"{line}Size:           {kib(size):8d} kB\n")
        text.append("KernelPageSize:        4 kB\nMMUPageSize:           4 kB\n")
        text.append(_usage_lines(vma, share) + f"THPeligible:           0\nVmFlags: {_flags(vma)}\n")
    return "".join(text)


def _usage_lines(vma: Any, resident: int) -> str:
    anonymous = vma.file is None or bool(vma.prot & PROT_WRITE and not vma.flags & MAP_SHARED)
    used = {"Rss": resident, "Pss": resident, "Referenced": resident}
    if anonymous:
        used |= {"Anonymous": resident, "Private_Dirty": resident, "Pss_Dirty": resident}
    else:
        used["Private_Clean"] = resident
    return "".join(f"{name + ':':<16}{kib(used.get(name, 0)):8d} kB\n" for name in _SMAPS_FIELDS)


def _flags(vma: Any) -> str:
    words = [word for word, bit in (("rd", PROT_READ), ("wr", PROT_WRITE), ("ex", PROT_EXEC)) if vma.prot & bit]
    words += ["sh"] if vma.flags & MAP_SHARED else []
    return " ".join([*words, "mr", "mw", "me"]) + " "


def render_smaps_rollup(subject: Subject) -> str:
    """Renders the sums over all areas."""
    memory = subject.memory
    if memory is None:
        return ""
    areas = list(memory.vmas)
    if not areas:
        return ""
    resident = resident_bytes(memory)
    head = f"{areas[0].start:08x}-{areas[-1].end:08x} ---p 00000000 00:00 0 ".ljust(NAME_COLUMN) + "[rollup]\n"
    used = dict.fromkeys(("Rss", "Pss", "Pss_Dirty", "Private_Dirty", "Referenced", "Anonymous"), resident)
    return head + "".join(f"{name + ':':<16}{kib(used.get(name, 0)):8d} kB\n" for name in _SMAPS_FIELDS)


def render_numa_maps(subject: Subject) -> str:
    """Renders the memory policy of each area: there is one node."""
    thread = subject.thread
    if thread is None:
        return ""
    root, lines = thread.fs.root, []
    for vma in thread.memory.vmas:
        kind = {"[heap]": " heap", "[stack]": " stack"}.get(vma.name, "")
        name = f" file={area_name(vma, root)}" if vma.file is not None else kind
        lines.append(f"{vma.start:08x} default{name} kernelpagesize_kB=4\n")
    return "".join(lines)
