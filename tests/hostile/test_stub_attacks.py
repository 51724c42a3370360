"""Attacks on the platform's stub and slots: they harm the attacker alone, and never what is outside."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import HERE, attack, hostile_sandbox, seeds

CASES = re.findall(r'\{"(\w+)", \w+\}', (HERE / "stub_attacks.c").read_text())
KILLED = 137

pytestmark = pytest.mark.slow


@pytest.fixture
def canary() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host's, in the session of none of the guests."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process
        assert process.poll() is None, "a guest has killed a process of the host"
        process.kill()


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("case", CASES)
async def test_the_attack_harms_only_the_attacker(nothing_left_behind: None, hostile_root: Path, case: str, seed: int,
                                                  canary: subprocess.Popen[bytes]) -> None:
    print("HOSTILE_SEED =", seed)
    async with hostile_sandbox(hostile_root) as sandbox:
        limit_s = 0.5 if case == "be_killed_at_the_end" else 20
        code = await attack(sandbox, ["/bin/stub_attacks", case, str(seed), str(canary.pid)], limit_s=limit_s)
    assert code in (0, None, KILLED)
