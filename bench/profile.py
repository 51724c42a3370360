"""Where the sentry's time goes for one call: `python -m bench.profile CALL…`, names as in ``report.py``.

For each call it prints the time per call, how much of it the sentry's processor time is, and the functions that
take most of that, as cProfile sees them (which about doubles the time of Python functions). Pin it to one processor
(`taskset -c 1 …`) for figures that other work on the machine disturbs least.
"""

from __future__ import annotations

import cProfile
import pstats
import resource
import sys
import time

import asyncsentry
from asyncsentry import loop
from bench.measure import build
from bench.report import ROWS

_BUDGET_MS = 300
_FUNCTIONS_SHOWN = 25


async def share_of_sentry(sandbox: asyncsentry.Sandbox, call: str) -> str:
    """Times a call and the sentry's part in it."""
    program, data = build()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = await sandbox.run([str(program), str(data), str(_BUDGET_MS), call])
    elapsed_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    per_call_us = float(result.stdout.split()[1]) / 1000
    user, system = ((getattr(after, name) - getattr(before, name)) / elapsed_s for name in ("ru_utime", "ru_stime"))
    return (f"{ROWS[call][0]}: {per_call_us:.2f} µs, of which the sentry's code {per_call_us * user:.2f} "
            f"and the host's kernel for it {per_call_us * system:.2f}")


async def profile(calls: list[str]) -> None:
    """Prints shares and profiles."""
    program, data = build()
    async with asyncsentry.Sandbox() as sandbox:
        for call in calls:
            print(await share_of_sentry(sandbox, call))
            profiler = cProfile.Profile()
            profiler.enable()
            await sandbox.run([str(program), str(data), str(_BUDGET_MS), call])
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(_FUNCTIONS_SHOWN)


if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in ROWS]
    if unknown or not sys.argv[1:]:
        sys.exit(f"usage: python -m bench.profile CALL…, of {' '.join(ROWS)}")
    loop.run(profile(sys.argv[1:]))
