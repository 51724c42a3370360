"""membarrier(2): memory barriers on the processors where other threads run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncsentry.abi import mman_h as abi
from asyncsentry.errnos import EINVAL, EPERM, from_host
from asyncsentry.platforms.barrier import barrier_everywhere
from asyncsentry.syscalls.args import Int, UInt
from asyncsentry.syscalls.registry import syscall

if TYPE_CHECKING:
    from asyncsentry.tasks.thread import Thread

_SUPPORTED = (
    abi.MEMBARRIER_CMD_GLOBAL | abi.MEMBARRIER_CMD_GLOBAL_EXPEDITED | abi.MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED
    | abi.MEMBARRIER_CMD_PRIVATE_EXPEDITED | abi.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED
    | abi.MEMBARRIER_CMD_GET_REGISTRATIONS
)  # fmt: skip
_REGISTRATIONS = abi.MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED | abi.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED


@syscall(324, errnos="EINVAL EPERM", missing="no SYNC_CORE and RSEQ commands; expedited ones are not faster")
async def membarrier(thread: Thread, command: Int, flags: UInt, cpu: Int) -> int:
    """membarrier(2): a process with one thread needs none, others get one from the host."""
    if flags or command < 0 or command & (command - 1) or command & ~_SUPPORTED:
        raise EINVAL("no such command")
    memory = thread.memory
    if command == abi.MEMBARRIER_CMD_QUERY:
        return _SUPPORTED
    if command == abi.MEMBARRIER_CMD_GET_REGISTRATIONS:
        return memory.membarriers
    if command & _REGISTRATIONS:
        memory.membarriers |= command
        return 0
    if command == abi.MEMBARRIER_CMD_PRIVATE_EXPEDITED:
        if not memory.membarriers & abi.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
            raise EPERM("the process has not registered")
        if memory.users == 1:
            return 0
    try:
        await asyncio.get_running_loop().run_in_executor(None, barrier_everywhere)
    except OSError as error:
        raise from_host(error) from error
    return 0
