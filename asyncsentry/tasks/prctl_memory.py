"""The operations of prctl(2) on memory: names of anonymous areas, and where a program's parts lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import prctl_h as abi
from asyncsentry.errnos import EBADF, EINVAL, ENOMEM, EPERM
from asyncsentry.platforms.base import GUEST_ADDRESS_MAX, GUEST_ADDRESS_MIN, PAGE_SIZE
from asyncsentry.tasks.credentials import CAP_SYS_RESOURCE

if TYPE_CHECKING:
    from asyncsentry.memory.vma import Vma
    from asyncsentry.tasks.thread import Thread

_FORBIDDEN_IN_NAMES = frozenset(b"\\`$[]")
_FIELDS = {
    abi.PR_SET_MM_START_CODE: "start_code", abi.PR_SET_MM_END_CODE: "end_code",
    abi.PR_SET_MM_START_DATA: "start_data", abi.PR_SET_MM_END_DATA: "end_data",
    abi.PR_SET_MM_START_STACK: "start_stack", abi.PR_SET_MM_START_BRK: "start_brk", abi.PR_SET_MM_BRK: "brk",
    abi.PR_SET_MM_ARG_START: "arg_start", abi.PR_SET_MM_ARG_END: "arg_end",
    abi.PR_SET_MM_ENV_START: "env_start", abi.PR_SET_MM_ENV_END: "env_end",
}  # fmt: skip


class _Named:
    """Gives areas a name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, vma: Vma) -> Vma:
        return vma.changed(name=self._name)


def name_area(thread: Thread, kind: int, start: int, length: int, name: int) -> int:
    """PR_SET_VMA: names anonymous memory as /proc/PID/maps shows it. EINVAL, EBADF for file memory, ENOMEM."""
    if kind != abi.PR_SET_VMA_ANON_NAME:
        raise EINVAL(f"no attribute {kind}")
    text = _read_area_name(thread, name) if name else ""
    end = start + (length + PAGE_SIZE - 1 & -PAGE_SIZE)
    if start % PAGE_SIZE or end > GUEST_ADDRESS_MAX or end < start:
        raise EINVAL("not a range of pages")
    if end == start:
        return 0
    vmas = thread.memory.vmas
    areas = vmas.overlapping(start, end)
    if any(vma.file is not None and vma.file.inode is not None for vma in areas):
        raise EBADF("memory of a file has the file's name")
    thread.memory.begin_change()
    vmas.change(start, end, _Named(text))
    if not vmas.covers(start, end):
        raise ENOMEM("part of the range is not mapped")
    return 0


def _read_area_name(thread: Thread, address: int) -> str:
    data = thread.memory.read_string(address, abi.ANON_VMA_NAME_MAX_LEN)
    if any(not 0x20 <= byte < 0x7F or byte in _FORBIDDEN_IN_NAMES for byte in data):
        raise EINVAL("a name is printable and has none of \\`$[]")
    return f"[anon:{data.decode('ascii')}]"


def set_layout(thread: Thread, field: int, value: int, size: int) -> int:
    """PR_SET_MM: EPERM without CAP_SYS_RESOURCE, EINVAL for what is not a mapped address."""
    if field == abi.PR_SET_MM_MAP_SIZE or field == abi.PR_SET_MM_MAP:
        raise EINVAL("the whole layout cannot be set at once")
    if not thread.credentials.has(CAP_SYS_RESOURCE):
        raise EPERM("only CAP_SYS_RESOURCE moves a program's parts")
    memory = thread.memory
    if field == abi.PR_SET_MM_EXE_FILE:
        return _set_executable(thread, value)
    if field == abi.PR_SET_MM_AUXV:
        if size > abi.AUXV_SIZE_MAX:
            raise EINVAL("too long for an auxiliary vector")
        data = memory.read(value, size)
        memory.auxv = data[:-16] + bytes(16) if size == abi.AUXV_SIZE_MAX else data
        return 0
    name = _FIELDS.get(field)
    if name is None or size or not GUEST_ADDRESS_MIN <= value < GUEST_ADDRESS_MAX:
        raise EINVAL(f"no field {field}, or not an address")
    if name not in ("start_brk", "brk") and memory.vmas.find(value) is None:
        raise EINVAL(f"nothing is mapped at {value:#x}")
    if (name == "start_brk" and memory.brk < value) or (name == "brk" and value < memory.start_brk):
        raise EINVAL("the heap would end before it begins")
    setattr(memory, name, value)
    return 0


def _set_executable(thread: Thread, fd: int) -> int:
    file = thread.fds.get(fd)
    if file.location is None:
        raise EINVAL("not a file with a path")
    thread.process.executable = file.location
    return 0
