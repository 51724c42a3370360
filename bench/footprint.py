"""What sandboxes cost beyond their calls: a second one's start, memory when idle, processor time of parked threads.

`python -m bench.footprint THREADS` prints one JSON object; it is run as a process of its own so that what it measures
is not mixed with the benchmark's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import asyncsentry
from asyncsentry import loop
from asyncsentry.sandbox import PIPE, Process
from bench.measure import build
from bench.systems import ASYNCSENTRY

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_WATCHED_S = 1.0


def children_of(pid: int) -> list[int]:
    """Gives the host processes a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def family_of(pid: int) -> list[int]:
    """Gives a process and all its descendants."""
    return [pid] + [member for child in children_of(pid) for member in family_of(child)]


def is_guest(pid: int) -> bool:
    """Whether a host process is one that holds guest memory."""
    return b"asyncsentry-guest" in Path(f"/proc/{pid}/cmdline").read_bytes()


def pss_bytes(pid: int) -> int:
    """Gives the proportional set size of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def processor_s(children: list[int]) -> float:
    """Gives the processor time that we and these processes have taken."""
    ticks = 0
    for child in children:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / _CLOCK_TICKS


def idle_memory() -> int:
    """Gives the memory of sentry and gofer while the program in the sandbox sleeps."""
    with subprocess.Popen([ASYNCSENTRY, "do", "--network", "none", "--", "sleep", "60"],
                          stdin=subprocess.DEVNULL) as sandbox:
        try:
            time.sleep(1.5)
            ours = [pid for pid in family_of(sandbox.pid) if not is_guest(pid)]
            return sum(map(pss_bytes, ours))
        finally:
            sandbox.terminate()


async def second_sandbox_ns(count: int = 7) -> float:
    """Gives the median time from nothing to an ended ``/bin/true`` for sandboxes after the first."""
    async def once() -> int:
        start = time.perf_counter_ns()
        async with asyncsentry.Sandbox() as sandbox:
            up = time.perf_counter_ns() - start
            await sandbox.run(["/bin/true"])
        return up

    times = [await once() for _ in range(count + 1)]
    return statistics.median(times[1:])


async def parked_threads(count: int) -> dict[str, float]:
    """Parks ``count`` guest threads; gives how many there are, what making one took, and what they cost parked."""
    program, _ = build()
    async with asyncsentry.Sandbox() as sandbox:
        process: Process = await sandbox.spawn([str(program), "threads", str(count)], stdin=PIPE, stdout=PIPE)
        assert process.stdout is not None
        assert process.stdin is not None
        made, nanoseconds = (await process.stdout.readline()).split()
        await asyncio.sleep(0.2)
        guests = children_of(os.getpid())
        before = processor_s(guests)
        await asyncio.sleep(_WATCHED_S)
        busy = processor_s(guests) - before
        process.stdin.close()
        await process.wait()
    return {"threads": int(made), "thread_ns": float(nanoseconds), "parked_percent": 100 * busy / _WATCHED_S}


def measure(threads: int) -> dict[str, float]:
    """Measures everything here."""
    async def in_one_process() -> dict[str, float]:
        return {"second_sandbox_ns": await second_sandbox_ns(), **await parked_threads(threads)}

    return {"idle_bytes": idle_memory(), **loop.run(in_one_process())}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
