"""`python -m bench`: runs everything, in about five minutes, and writes ``bench/results.md`` and its picture."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.chart import svg
from bench.measure import BUILD, FREE, HERE, VARIANTS, time_calls, time_start
from bench.report import ROWS, Findings, markdown
from bench.systems import available

_FOOTPRINT_TIMEOUT_S = 120
_TITLE = "Time per system call, free processors"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--budget-ms", type=int, default=100, help="time for one call in one round (default: 100)")
    parser.add_argument("--threads", type=int, default=10000, help="guest threads to park (default: 10000; 0: none)")
    parser.add_argument("--variant", action="append", choices=[variant.name for variant in VARIANTS])
    parser.add_argument("--calls", nargs="*", default=(), choices=list(ROWS), metavar="NAME", help="only these calls")
    parser.add_argument("--output", type=Path, default=HERE, help="where results.md and comparison.svg go")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: write the last findings again")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> Findings:
    """Measures what the options ask for."""
    systems, missing = available()
    findings = Findings(machine=_machine(), missing=missing)
    for variant in VARIANTS:
        if options.variant and variant.name not in options.variant:
            continue
        samples = time_calls(systems, variant, options.budget_ms, options.calls)
        findings.calls[variant.name] = samples.medians()
        findings.missing.update({f"{name}, {variant.name}": why for name, why in samples.failures.items()})
    findings.start = time_start(systems, 7).medians()
    if options.threads:
        _measure_footprint(findings, options.threads)
    findings.machine["load average at the end"] = _load()
    return findings


def _measure_footprint(findings: Findings, threads: int) -> None:
    try:
        done = subprocess.run([sys.executable, "-m", "bench.footprint", str(threads)], capture_output=True, text=True,
                              timeout=_FOOTPRINT_TIMEOUT_S, check=False, cwd=HERE.parent)
    except subprocess.TimeoutExpired:
        findings.missing["footprint"] = f"took more than {_FOOTPRINT_TIMEOUT_S} s"
        return
    if done.returncode:
        findings.missing["footprint"] = done.stderr.strip().splitlines()[-1]
    else:
        findings.footprint = json.loads(done.stdout)


def _machine() -> dict[str, str]:
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processors": f"{len(os.sched_getaffinity(0))} × {models[0] if models else platform.machine()}",
        "host kernel": f"Linux {platform.release()}",
        "Python": platform.python_version(),
        "load average at the start": _load(),
    }


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def main() -> None:
    """Runs the benchmark."""
    options = parse(sys.argv[1:])
    kept = BUILD / "findings.json"
    if options.redraw:
        findings = Findings(**json.loads(kept.read_text()))
    else:
        findings = measure(options)
        kept.write_text(json.dumps(dataclasses.asdict(findings)))
    (options.output / "results.md").write_text(markdown(findings))
    if FREE.name in findings.calls:
        (options.output / "comparison.svg").write_text(svg(findings.calls[FREE.name], _TITLE))
    print(markdown(findings))


if __name__ == "__main__":
    main()
