"""Random system calls with hostile arguments, as root and as a user: the guest suffers, the sentry does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import attack, hostile_sandbox, seeds

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", seeds(2))
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("rewriters", [0, 2])
async def test_random_calls_harm_only_their_caller(nothing_left_behind: None, hostile_root: Path, seed: int, uid: int,
                                                    rewriters: int) -> None:
    print("HOSTILE_SEED =", seed)
    async with hostile_sandbox(hostile_root, may_ruin_files=uid == 0) as sandbox:
        await attack(sandbox, ["/bin/random_calls", str(seed), "4", "3", "1000", "20", str(rewriters)], (uid, uid),
                     limit_s=8)
