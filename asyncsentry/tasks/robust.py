"""Robust futexes: words a thread registered are released when it ends holding them.

See get_robust_list(2), linux/Documentation/locking/robust-futexes.rst. The list lies in guest memory and is
as hostile as all of it: its length is capped, and a bad address just ends the walk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsentry.abi import futex_h as abi
from asyncsentry.errnos import LinuxError
from asyncsentry.tasks.futex import wake

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread


async def release_robust_list(thread: Thread) -> None:
    """Marks every futex on the list FUTEX_OWNER_DIED and wakes one sleeper of each."""
    head, _ = thread.robust_list
    thread.robust_list = (0, 0)
    if not head:
        return
    try:
        await _walk(thread, head)
    except LinuxError:
        return  # Linux, too, stops silently at the first address it cannot use


async def _walk(thread: Thread, head: int) -> None:
    entry, offset, pending = thread.memory.read_struct(head, abi.ROBUST_LIST_HEAD)
    for _ in range(abi.ROBUST_LIST_LIMIT):
        if entry & ~1 == head:
            break
        following = thread.memory.read_u64(entry & ~1)  # before the entry may be freed by whom we wake
        if entry & ~1 != pending & ~1:
            await _release(thread, (entry & ~1) + offset, is_pi=bool(entry & 1), is_pending=False)
        entry = following
    if pending & ~1:
        await _release(thread, (pending & ~1) + offset, is_pi=bool(pending & 1), is_pending=True)


async def _release(thread: Thread, address: int, is_pi: bool, is_pending: bool) -> None:
    """Does for one entry what Linux's ``handle_futex_death`` does."""
    address &= (1 << 64) - 1  # the list's offset is signed
    while True:
        word = thread.memory.read_u32(address)
        owner = word & abi.FUTEX_TID_MASK
        if is_pending and not is_pi and owner == 0:
            wake(thread, address, 1, shared=True)  # it died between unlocking and waking
            return
        if owner != thread.tid:
            return
        new = word & abi.FUTEX_WAITERS | abi.FUTEX_OWNER_DIED
        if await thread.context.compare_exchange(address, word, new) == word:
            break
    if not is_pi and word & abi.FUTEX_WAITERS:
        wake(thread, address, 1, shared=True)
