"""Runs the timed program in every system, in turns, so that a disturbance of the machine meets them all alike."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.systems import System

HERE = Path(__file__).parent
BUILD = HERE.parent / ".cache" / "bench"
_RUN_TIMEOUT_S = 60
_BUSY_LOOP = "while True: pass"

Table = dict[str, dict[str, float]]
"""System: call: nanoseconds."""


@dataclass(frozen=True)
class Variant:
    """What the processors do besides."""

    name: str
    title: str
    rounds: int
    is_pinned: bool = False
    is_busy: bool = False


FREE = Variant("free", "free processors", 3)
PINNED = Variant("pinned", "everything on one processor", 2, is_pinned=True)
BUSY = Variant("busy", "every processor also busy with other work", 2, is_busy=True)
VARIANTS = (FREE, PINNED, BUSY)


@dataclass
class Samples:
    """What was measured, by system and name."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """System: what kept it from finishing a round."""

    def add(self, system: str, name: str, value: float) -> None:
        """Keeps one value."""
        self.values.setdefault(system, {}).setdefault(name, []).append(value)

    def medians(self) -> Table:
        """Gives the median of each."""
        return {system: {name: statistics.median(values) for name, values in rows.items()}
                for system, rows in self.values.items()}


def build() -> tuple[Path, Path]:
    """Compiles the timed program if it has changed; gives it and the file it reads."""
    BUILD.mkdir(parents=True, exist_ok=True)
    source, program, data = HERE / "calls.c", BUILD / "calls", BUILD / "data"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-pthread", "-o", str(program), str(source)], check=True)
    if not data.exists():
        data.write_bytes(os.urandom(1 << 20))
    return program, data


def time_calls(systems: Sequence[System], variant: Variant, budget_ms: int, calls: Sequence[str] = ()) -> Samples:
    """Times calls in each system; ``budget_ms`` is for one call in one round."""
    program, data = build()
    samples = Samples()
    with _conditions(variant):
        for _ in range(variant.rounds):
            for system in systems:
                argv = [str(program), str(data), str(budget_ms), *calls]
                for name, value in _run_calls(system, argv, samples.failures):
                    samples.add(system.name, name, value)
    return samples


def time_start(systems: Sequence[System], rounds: int) -> Samples:
    """Times running ``/bin/true`` from outside, in nanoseconds of wall time."""
    samples = Samples()
    for _ in range(rounds):
        for system in systems:
            start = time.perf_counter_ns()
            subprocess.run(system.command(["/bin/true"]), stdin=subprocess.DEVNULL, capture_output=True,
                           timeout=_RUN_TIMEOUT_S, check=False)
            samples.add(system.name, "start", time.perf_counter_ns() - start)
    return samples


def _run_calls(system: System, argv: Sequence[str], failures: dict[str, str]) -> Iterator[tuple[str, float]]:
    try:
        done = subprocess.run(system.command(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=_RUN_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        failures[system.name] = f"took more than {_RUN_TIMEOUT_S} s"
        return
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        failures[system.name] = lines[-1][:120]
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        yield name, float(value)


@contextlib.contextmanager
def _conditions(variant: Variant) -> Iterator[None]:
    """Pins us (and whatever we start) to one processor, or loads every processor."""
    allowed = os.sched_getaffinity(0)
    others = []
    if variant.is_busy:
        others = [subprocess.Popen([sys.executable, "-I", "-S", "-c", _BUSY_LOOP],
                                   preexec_fn=_pinner(cpu)) for cpu in allowed]
    if variant.is_pinned:
        os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        for other in others:
            other.kill()
            other.wait()


def _pinner(cpu: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {cpu})
