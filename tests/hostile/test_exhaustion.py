"""Guests that take all there is of something: they are refused or ended, and the sandbox goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import HERE, attack, hostile_sandbox

CASES = re.findall(r'\{"(\w+)", \w+\}', (HERE / "exhaustion.c").read_text())
KILLED = 137
MEMORY_BYTES = 300 << 20

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", CASES)
async def test_taking_all_there_is(nothing_left_behind: None, hostile_root: Path, case: str) -> None:
    async with hostile_sandbox(hostile_root, memory=MEMORY_BYTES) as sandbox:
        code = await attack(sandbox, ["/bin/exhaustion", case], limit_s=40)
        sandbox.kernel.shared_memory.close()  # segments outlive whoever filled memory with them
    assert code in (0, KILLED)
