from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asyncsentry.boot import make_platform
from asyncsentry.gate import RunQueue
from asyncsentry.platforms.base import Platform


@pytest.fixture(params=["systrap", "ptrace"])
async def platform(nothing_left_behind: None, request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    made = make_platform(request.param)
    made.run_queue = RunQueue(asyncio.get_running_loop())
    await made.start()
    yield made
    await made.close()
