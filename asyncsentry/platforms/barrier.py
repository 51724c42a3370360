"""A memory barrier on all processors, membarrier(2) of the host: for guests that ask for one among their threads."""

from __future__ import annotations

import ctypes
import os

_SYS_MEMBARRIER = 324
_CMD_GLOBAL = 1


def barrier_everywhere() -> None:
    """Returns once every running thread of the host has passed a barrier.

    Takes milliseconds (the host waits for its schedulers), so call it off the event loop. OSError if the host cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SYS_MEMBARRIER, _CMD_GLOBAL, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
