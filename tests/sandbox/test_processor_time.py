"""Processor time of guests: told apart as Linux tells it, and never going back."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from asyncsentry import Sandbox

pytestmark = pytest.mark.slow

SOURCE = """
import json, mmap, resource, time
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime
seen = [used()]
for _ in range(8):
    sum(range(1_000_000))
    seen.append(used())
before = seen[-1]
for _ in range(20):
    area = mmap.mmap(-1, 16 << 20)
    area.madvise(23)  # MADV_POPULATE_WRITE: the host makes all pages, the guest does nothing
    area.close()
    seen.append(used())
print(json.dumps([seen, before, time.process_time()]))
"""


async def test_user_and_system_time_are_told_apart(nothing_left_behind: None) -> None:
    async with Sandbox() as sandbox:
        result = await sandbox.run(["python3", "-c", SOURCE], timeout=30)
    assert result.exit_code == 0, result.stderr
    seen, before, total = json.loads(result.stdout)
    assert all(earlier[kind] <= later[kind] for earlier, later in pairwise(seen) for kind in (0, 1))
    assert before[0] > 0
    assert seen[-1][1] - before[1] > seen[-1][0] - before[0]
    assert sum(seen[-1]) == pytest.approx(total, abs=0.05)
