"""What every test gets: nothing may be left behind, and a hang says where everything stood."""

from __future__ import annotations

import asyncio
import faulthandler
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

HANG_TIMEOUT_S = 120


@pytest.fixture(autouse=True)
def dump_stacks_on_hang(request: pytest.FixtureRequest) -> Iterator[None]:
    """Prints every thread's stack if one test takes too long, and ends the run; ``limit_s`` marks allow for more."""
    marker = request.node.get_closest_marker("limit_s")
    faulthandler.dump_traceback_later(marker.args[0] if marker else HANG_TIMEOUT_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def open_descriptors() -> dict[int, str]:
    """Gives this process's descriptors with what they lead to."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
    return found


def child_processes() -> set[int]:
    """Gives the pids of this process's children."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            found.update(map(int, Path(f"/proc/self/task/{task}/children").read_text().split()))
        except FileNotFoundError:
            continue
    return found


@pytest.fixture
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fails the test if it leaves a task, a descriptor or a process."""
    tasks, descriptors, children = asyncio.all_tasks(), open_descriptors(), child_processes()
    yield
    await asyncio.sleep(0)
    mine = {asyncio.current_task()}
    left_tasks = [task for task in asyncio.all_tasks() - tasks - mine if not task.done()]
    left = {fd: target for fd, target in open_descriptors().items() if fd not in descriptors}
    assert not left_tasks, f"tasks left: {left_tasks}"
    assert not child_processes() - children, "processes left"
    assert not left, f"descriptors left: {left}"
