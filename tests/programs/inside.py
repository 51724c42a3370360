"""Running a program in a sandbox with a time limit, and holding it against the native run."""

from __future__ import annotations

import asyncio
import difflib
import subprocess
from collections.abc import Awaitable, Callable, Sequence

import pytest
from guestdump import describe

from asyncsentry.sandbox import Result, Sandbox

Compare = Callable[..., Awaitable[Result]]
"""Runs a command natively and inside, fails where they differ, and gives what the sandbox gave."""


async def run_inside(sandbox: Sandbox, argv: Sequence[str], *, input: bytes = b"", cwd: str = "/",
                     limit_s: float = 60) -> Result:
    """Runs a program in a sandbox; one that takes too long fails the test and says where its threads stand."""
    process = await sandbox.spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd)
    outputs = asyncio.ensure_future(process.communicate(input))
    done, _ = await asyncio.wait([outputs], timeout=limit_s)
    if not done:
        state = describe(sandbox.kernel)
        outputs.cancel()
        pytest.fail(f"{argv} still runs after {limit_s} s; {state}")
    out, err = outputs.result()
    assert process.exit_code is not None
    return Result(process.exit_code, out or b"", err or b"")


def assert_same(expected: Result, actual: Result) -> None:
    """Fails unless both wrote the same to standard output and ended alike; shows what differs."""
    texts = [result.stdout.decode(errors="replace").splitlines() for result in (expected, actual)]
    difference = list(difflib.unified_diff(*texts, "native", "inside", lineterm="", n=1))
    if expected.exit_code != actual.exit_code:
        difference.append(f"exit code: native {expected.exit_code}, inside {actual.exit_code}")
    if difference:
        errors = actual.stderr.decode(errors="replace")[-4000:]
        pytest.fail("\n".join([*difference[:100], "standard error inside:", errors]), pytrace=False)
