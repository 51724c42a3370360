"""Memory policies on a machine with one node: checked, kept, told back. See numa(7), set_mempolicy(2)."""

from __future__ import annotations

from asyncsentry.abi import sched_h as abi
from asyncsentry.errnos import EFAULT, EINVAL, ENODEV, ENOENT
from asyncsentry.platforms.base import PAGE_SIZE
from asyncsentry.syscalls.args import Flags, Int, Pointer, Size
from asyncsentry.syscalls.registry import syscall
from asyncsentry.tasks.groups import find_process, find_thread
from asyncsentry.tasks.ids import check_may_attach
from asyncsentry.tasks.thread import Thread

_ONE_NODE = "there is one node: policies are kept and told back"
_MODE_FLAGS = abi.MPOL_F_STATIC_NODES | abi.MPOL_F_RELATIVE_NODES | abi.MPOL_F_NUMA_BALANCING
_MASK_BITS_MAX = PAGE_SIZE * 8
_MBIND_FLAGS = 7
_MOVE_PAGES_MAX = 1 << 16


@syscall(238, errnos="EFAULT EINVAL", missing=_ONE_NODE)
def set_mempolicy(thread: Thread, mode: Int, mask: Pointer, bits: Size) -> int:
    """set_mempolicy(2)."""
    thread.scheduling.memory_policy = _checked_policy(thread, mode, mask, bits)
    return 0


def _checked_policy(thread: Thread, mode: int, mask: int, bits: int) -> tuple[int, int]:
    """Reads a policy; EINVAL for modes and nodes there are not."""
    kind = mode & ~_MODE_FLAGS
    nodes = _read_nodes(thread, mask, bits)
    if not abi.MPOL_DEFAULT <= kind <= abi.MPOL_PREFERRED_MANY or (
            mode & abi.MPOL_F_STATIC_NODES and mode & abi.MPOL_F_RELATIVE_NODES):
        raise EINVAL(f"no policy {mode:#x}")
    if kind in (abi.MPOL_DEFAULT, abi.MPOL_LOCAL) and nodes:
        raise EINVAL("a policy without nodes")
    if kind in (abi.MPOL_BIND, abi.MPOL_INTERLEAVE, abi.MPOL_PREFERRED_MANY) and not nodes & 1:
        raise EINVAL("none of the nodes is there")
    return mode, nodes & 1


def _read_nodes(thread: Thread, mask: int, bits: int) -> int:
    if not mask or bits <= 1:
        return 0
    bits -= 1  # Linux takes one more than it uses
    if bits > _MASK_BITS_MAX:
        raise EINVAL("a mask larger than a page")
    data = thread.memory.read(mask, (bits + 63) // 64 * 8)
    return int.from_bytes(data, "little") & (1 << bits) - 1


@syscall(239, errnos="EFAULT EINVAL", missing=_ONE_NODE)
def get_mempolicy(thread: Thread, mode: Pointer, mask: Pointer, bits: Size, address: Pointer, flags: Flags) -> int:
    """get_mempolicy(2)."""
    known = abi.MPOL_F_NODE | abi.MPOL_F_ADDR | abi.MPOL_F_MEMS_ALLOWED
    if flags & ~known or (mask and bits < 1):
        raise EINVAL("unknown flags or too small a mask")
    policy, nodes = thread.scheduling.memory_policy
    if flags & abi.MPOL_F_MEMS_ALLOWED:
        if flags & (abi.MPOL_F_NODE | abi.MPOL_F_ADDR):
            raise EINVAL("flags that exclude each other")
        policy, nodes = 0, 1
    elif flags & abi.MPOL_F_ADDR:
        if thread.memory.vmas.find(address) is None:
            raise EFAULT(f"nothing is mapped at {address:#x}")
        policy, nodes = (0, 0) if flags & abi.MPOL_F_NODE else (policy, nodes)
    elif address or (flags & abi.MPOL_F_NODE and policy & ~_MODE_FLAGS != abi.MPOL_INTERLEAVE):
        raise EINVAL("an address without MPOL_F_ADDR, or no next node")
    elif flags & abi.MPOL_F_NODE:
        policy = 0
    if mode:
        thread.memory.write_u32(mode, policy)
    if mask:
        size = min((bits + 63) // 64 * 8, PAGE_SIZE)
        thread.memory.write(mask, nodes.to_bytes(size, "little"))
    return 0


@syscall(237, errnos="EFAULT EINVAL", missing=_ONE_NODE)
def mbind(thread: Thread, start: Pointer, length: Size, mode: Size, mask: Pointer, bits: Size, flags: Flags) -> int:
    """mbind(2): EINVAL, then EFAULT for a hole in the range."""
    if flags & ~_MBIND_FLAGS or start % PAGE_SIZE:
        raise EINVAL("unknown flags or not a page")
    policy, _ = _checked_policy(thread, mode, mask, bits)
    end = start + (length + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
    if end > 1 << 64:
        raise EINVAL("the range wraps")
    if end > start and policy != abi.MPOL_DEFAULT and not thread.memory.vmas.covers(start, end):
        raise EFAULT("part of the range is not mapped")
    return 0


@syscall(450, errnos="EINVAL EOPNOTSUPP", missing=_ONE_NODE)
def set_mempolicy_home_node(thread: Thread, start: Pointer, length: Size, node: Size, flags: Size) -> int:
    """set_mempolicy_home_node(2)."""
    if flags or start % PAGE_SIZE or node:
        raise EINVAL("unknown flags, not a page, or not a node")
    return 0


@syscall(256, errnos="EFAULT EINVAL EPERM ESRCH", missing=_ONE_NODE)
def migrate_pages(thread: Thread, pid: Int, bits: Size, old: Pointer, new: Pointer) -> int:
    """migrate_pages(2): with one node nothing moves."""
    _read_nodes(thread, old, bits)
    nodes = _read_nodes(thread, new, bits)
    check_may_attach(thread, find_process(thread, pid))
    if not nodes & 1:
        raise EINVAL("none of the nodes is there")
    return 0


@syscall(279, errnos="EFAULT EINVAL ENODEV EPERM ESRCH", missing=_ONE_NODE)
def move_pages(thread: Thread, pid: Int, count: Size, pages: Pointer, nodes: Pointer, status: Pointer,
               flags: Flags) -> int:
    """move_pages(2): tells for each page that it is on node 0, or ENOENT."""
    if flags & ~6:
        raise EINVAL("unknown flags")
    target = find_thread(thread, pid)
    check_may_attach(thread, target.process)
    if count > _MOVE_PAGES_MAX:
        raise EINVAL("too many pages at once")
    addresses = thread.memory.read(pages, count * 8)
    if nodes and any(thread.memory.read(nodes, count * 4)):
        raise ENODEV("there is no node but 0")
    for index in range(count):
        address = int.from_bytes(addresses[index * 8 : index * 8 + 8], "little")
        is_mapped = target.memory.vmas.find(address) is not None
        thread.memory.write_i32(status + index * 4, 0 if is_mapped else -ENOENT.errno)
    return 0
