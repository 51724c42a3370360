"""Slow calls on host files, in worker threads where they are slow: the event loop, and all other guests, go on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from asyncsentry import errnos

_AT_ONCE_MAX = 16 << 20
"""Bytes that are reserved sooner than a thread is woken."""


async def sync_host_file(descriptor: int, data_only: bool) -> None:
    """Writes a host file through, fsync(2) or fdatasync(2)."""
    await _in_worker(os.fdatasync if data_only else os.fsync, descriptor)


async def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """Runs fallocate(2) on a host file: on one in memory it makes every page."""
    if length <= _AT_ONCE_MAX:
        _fallocate(descriptor, mode, offset, length)
    else:
        await _in_worker(_fallocate, descriptor, mode, offset, length)


async def _in_worker(call: Callable[..., None], descriptor: int, *arguments: Any) -> None:
    try:
        copy = os.dup(descriptor)  # the file may be closed meanwhile
        await asyncio.get_running_loop().run_in_executor(None, _call_and_close, call, copy, *arguments)
    except OSError as error:
        raise errnos.from_host(error) from None


def _call_and_close(call: Callable[..., None], descriptor: int, *arguments: Any) -> None:
    # Closed here and not by who waits: that may end before the call does, and the number be another file's by then.
    try:
        call(descriptor, *arguments)
    finally:
        os.close(descriptor)


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    import ctypes  # Python offers the call without its modes; this import costs milliseconds, and few programs need it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise errnos.from_host(OSError(ctypes.get_errno(), "fallocate"))
