"""Memory policy calls, answered as on a machine with one memory node, numa(7); and remap_file_pages(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.errnos import EFAULT, EINVAL
from asyncsentry.memory.layout import page_up
from asyncsentry.platforms.base import PAGE_SIZE
from asyncsentry.syscalls.args import Flags, Int, Pointer, Size, UInt
from asyncsentry.syscalls.registry import syscall

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

_MPOL_DEFAULT, _MPOL_PREFERRED, _MPOL_BIND, _MPOL_INTERLEAVE, _MPOL_LOCAL = range(5)
_MPOL_MODE_FLAGS = 0xE000
_MPOL_F_NODE, _MPOL_F_ADDR, _MPOL_F_MEMS_ALLOWED = 1, 2, 4
_MPOL_MF_ALL = 0x7
_MASK_BITS_MAX = PAGE_SIZE * 8
_ONLY_NODE = 1


def _read_nodes(thread: Thread, address: int, max_node: int) -> int:
    """Reads a node mask; EINVAL if it names other nodes than the one there is."""
    bits = max_node - 1
    if not address or bits <= 0:
        return 0
    if bits > _MASK_BITS_MAX:
        raise EINVAL("a mask of too many nodes")
    words = (bits + 63) // 64
    mask = int.from_bytes(thread.memory.read(address, 8 * words), "little") & (1 << bits) - 1
    if mask & ~_ONLY_NODE:
        raise EINVAL("no such node")
    return mask


def _check_policy(thread: Thread, mode: int, nodes: int, max_node: int) -> int:
    kind = mode & ~_MPOL_MODE_FLAGS
    if not _MPOL_DEFAULT <= kind <= _MPOL_LOCAL:
        raise EINVAL("no such policy")
    mask = _read_nodes(thread, nodes, max_node)
    if (kind == _MPOL_DEFAULT and mask) or (kind in (_MPOL_BIND, _MPOL_INTERLEAVE) and not mask):
        raise EINVAL("policy and nodes do not fit")
    return mode


@syscall(237, errnos="EFAULT EINVAL EIO ENOMEM EPERM", missing="one memory node: checked, without effect")
def mbind(thread: Thread, address: Pointer, length: Size, mode: Size, nodes: Pointer, max_node: Size,
          flags: UInt) -> int:
    """mbind(2): all memory is on the only node already."""
    if address & (PAGE_SIZE - 1) or flags & ~_MPOL_MF_ALL:
        raise EINVAL("not a page, or unknown flags")
    _check_policy(thread, mode, nodes, max_node)
    if not thread.memory.vmas.covers(address, address + page_up(length)):
        raise EFAULT("there is a hole in the range")
    return 0


@syscall(238, errnos="EFAULT EINVAL ENOMEM", missing="one memory node: kept, without effect")
def set_mempolicy(thread: Thread, mode: Int, nodes: Pointer, max_node: Size) -> int:
    """set_mempolicy(2): keeps the policy for get_mempolicy(2)."""
    thread.memory_policy = (_check_policy(thread, mode, nodes, max_node), _read_nodes(thread, nodes, max_node))
    return 0


@syscall(239, errnos="EFAULT EINVAL", missing="one memory node")
def get_mempolicy(thread: Thread, mode: Pointer, nodes: Pointer, max_node: Size, address: Pointer,
                  flags: Flags) -> int:
    """get_mempolicy(2): the kept policy, or where a page is."""
    if flags & ~(_MPOL_F_NODE | _MPOL_F_ADDR | _MPOL_F_MEMS_ALLOWED):
        raise EINVAL("unknown flags")
    kept, mask = thread.memory_policy
    if flags & _MPOL_F_MEMS_ALLOWED:
        if flags != _MPOL_F_MEMS_ALLOWED:
            raise EINVAL("flags that exclude each other")
        kept, mask = 0, _ONLY_NODE
    elif flags & _MPOL_F_ADDR:
        if thread.memory.vmas.find(address) is None:
            raise EFAULT("nothing mapped there")
        kept, mask = 0, 0
    elif address or (flags & _MPOL_F_NODE and kept & ~_MPOL_MODE_FLAGS != _MPOL_INTERLEAVE):
        raise EINVAL("an address, or a node, where none is asked for")
    if mode:
        thread.memory.write_u32(mode, kept)
    if nodes:
        if max_node < 1 or max_node > _MASK_BITS_MAX:
            raise EINVAL("a mask of too few or too many nodes")
        thread.memory.write(nodes, mask.to_bytes((max_node + 63) // 64 * 8, "little"))
    return 0


@syscall(279, errnos="EACCES EFAULT EINVAL ENODEV ENOENT EPERM ESRCH",
         missing="tells where the caller's own pages are (all on node 0), moves none")
def move_pages(thread: Thread, pid: Int, count: Size, pages: Pointer, nodes: Pointer, status: Pointer,
               flags: Int) -> int:
    """move_pages(2): every mapped page is on node 0."""
    if flags & ~0x6 or pid not in (0, thread.process.pid):
        raise EINVAL("unknown flags, or another process")
    if count > 1 << 20:
        raise EFAULT("more pages than can be")
    memory = thread.memory
    for index in range(count):
        address = memory.read_u64(pages + 8 * index)
        if nodes and memory.read_i32(nodes + 4 * index) != 0:
            raise EINVAL("no such node")
        memory.write_i32(status + 4 * index, 0 if memory.vmas.find(address) else -EFAULT.errno)
    return 0


@syscall(216, errnos="EINVAL", missing="nonlinear mappings are not supported")
def remap_file_pages(thread: Thread, address: Pointer, size: Size, prot: Size, offset: Size, flags: Size) -> int:
    """remap_file_pages(2): EINVAL, as Linux says for areas it cannot remap."""
    raise EINVAL("no nonlinear mappings")
