"""The other ways into a kernel (int 0x80, sysenter, x32, vsyscalls, 32-bit code) lead nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import HERE, attack, hostile_sandbox, seeds

CASES = re.findall(r'\{"(\w+)", \w+\}', (HERE / "legacy_entries.c").read_text())

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("case", CASES)
async def test_the_entry_is_ours_or_closed(nothing_left_behind: None, hostile_root: Path, case: str, seed: int) -> None:
    print("HOSTILE_SEED =", seed)
    async with hostile_sandbox(hostile_root) as sandbox:
        assert await attack(sandbox, ["/bin/legacy_entries", case, str(seed)], limit_s=30) == 0
