"""Writes ``results.md``: what was measured, beside what was aimed at."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.measure import VARIANTS, Table

ROWS: dict[str, tuple[str, float | None]] = {
    "getppid": ("getppid", 2),
    "pread_4k": ("pread 4 KiB", 5),
    "pread_64k": ("pread 64 KiB", None),
    "write_null": ("write 64 B to /dev/null", None),
    "stat": ("stat", 6),
    "open_close": ("open + close", 15),
    "pipe": ("pipe write + read, one process", 10),
    "ping_pong": ("pipe ping-pong, two processes", None),
    "mmap": ("mmap + touch + munmap", 15),
    "futex_wake": ("futex wake, nobody waits", None),
    "signal": ("kill itself, handler, sigreturn", None),
    "fork": ("fork + exit + wait", 400),
    "fork_exec": ("fork + exec + wait", 2000),
    "spawn": ("posix_spawn + wait", None),
}
"""Call: how the table names it, and the goal in µs with free processors."""
PLAIN_GOAL_US = 8
"""For any plain call with no processor free."""
PLAIN = ("getppid", "pread_4k", "write_null", "stat", "futex_wake")


@dataclass
class Findings:
    """Everything one run of the benchmark found."""

    machine: dict[str, str] = field(default_factory=dict)
    calls: dict[str, Table] = field(default_factory=dict)
    """Variant: system: call: nanoseconds."""
    start: Table = field(default_factory=dict)
    footprint: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """System: why it was not measured, or not to the end."""


def markdown(findings: Findings) -> str:
    """Gives the report."""
    lines = ["# Benchmark results", "", "Written by `make bench`; see docs/performance.md for how to read it.", ""]
    lines += [f"- {name}: {value}" for name, value in findings.machine.items()]
    lines += [f"- {system}: {reason}" for system, reason in findings.missing.items()]
    for variant in VARIANTS:
        if variant.name in findings.calls:
            lines += ["", f"## Calls, {variant.title}", ""]
            lines += _calls_table(findings.calls[variant.name], variant.name)
    lines += ["", "## Start and footprint", "", *_others_table(findings)]
    return "\n".join(lines) + "\n"


def _calls_table(table: Table, variant: str) -> list[str]:
    """Gives microseconds, and how many times native that is."""
    systems = list(table)
    lines = ["Median µs per call (times native).", ""]
    lines += [f"| call | {' | '.join(systems)} | goal |", f"|---|{'---|' * len(systems)}---|"]
    for call, (title, goal) in ROWS.items():
        if not any(call in table[system] for system in systems):
            continue
        native = table.get("native", {}).get(call)
        cells = [_cell(table[system].get(call), None if system == "native" else native) for system in systems]
        if variant != "free":
            goal = PLAIN_GOAL_US if call in PLAIN else None
        lines.append(f"| {title} | {' | '.join(cells)} | {'' if goal is None else f'{goal:g}'} |")
    return lines


def _cell(nanoseconds: float | None, native: float | None) -> str:
    if nanoseconds is None:
        return "–"
    text = number(nanoseconds / 1000)
    return f"{text} ({number(nanoseconds / native)}×)" if native else text


def number(value: float) -> str:
    """Writes a number with about three digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _others_table(findings: Findings) -> list[str]:
    lines = ["| what | measured | goal |", "|---|---|---|"]
    for system, row in findings.start.items():
        goal = "200 ms" if system == "asyncsentry systrap" else ""
        lines.append(f"| /bin/true from start to end, {system} | {row['start'] / 1e6:.1f} ms | {goal} |")
    found = findings.footprint
    if found:
        lines += [
            f"| a second sandbox in a running Python process | {found['second_sandbox_ns'] / 1e6:.1f} ms | 20 ms |",
            f"| sentry and gofer idle, PSS | {found['idle_bytes'] / 1e6:.1f} MB | 60 MB |",
            f"| guest threads parked at once | {found['threads']:.0f} | 10000 |",
            f"| making each of them | {found['thread_ns'] / 1000:.0f} µs | |",
            f"| processor time while they are parked | {found['parked_percent']:.1f} % | 0 % |",
        ]
    return lines
