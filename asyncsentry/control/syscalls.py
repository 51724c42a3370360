"""``asyncsentry syscalls``: which system calls are supported, partly supported (and what is missing), or not (and why).

Everything comes from the registry, so the list cannot disagree with what guests get. ``docs/syscalls.md`` is the
markdown form.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from asyncsentry import syscalls
from asyncsentry.syscalls.registry import ROWS, Support

_HEADING = """\
# System calls

What each system call of Linux on x86-64 gets here. This page is generated from the registry: after a change,
`asyncsentry syscalls --format markdown > docs/syscalls.md` writes it anew, and a test fails until that is done.
*Supported* means that we know of nothing a program could miss; *partial* names what is missing; *unsupported* says
why. Calls that are unsupported, and numbers not listed, fail with ENOSYS unless the note says otherwise.
"""


class Coverage(NamedTuple):
    """One line of the list."""

    number: int
    name: str
    level: str
    note: str


def coverage() -> list[Coverage]:
    """Lists every known system call by number."""
    syscalls.load()
    return [Coverage(row.number, row.name, row.support.value, row.missing) for _, row in sorted(ROWS.items())]


def summary(rows: Sequence[Coverage]) -> str:
    """Counts the levels in one line."""
    levels = [row.level for row in rows]
    counts = ", ".join(f"{levels.count(support.value)} {support.value}" for support in Support)
    return f"{len(rows)} system calls: {counts}\n"


def as_table(rows: Sequence[Coverage]) -> str:
    """Gives columns for people."""
    texts = [("number", "name", "level", "note"), *((str(row.number), *row[1:]) for row in rows)]
    widths = [max(len(text[column]) for text in texts) for column in range(3)]
    lines = [
        f"{number:>{widths[0]}}  {name:<{widths[1]}}  {level:<{widths[2]}}  {note}".rstrip()
        for number, name, level, note in texts
    ]
    return "\n".join(lines) + "\n"


def as_csv(rows: Sequence[Coverage]) -> str:
    """Gives comma-separated values with a header line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Coverage._fields)
    writer.writerows(rows)
    return text.getvalue()


def as_json(rows: Sequence[Coverage]) -> str:
    """Gives a list of objects."""
    return json.dumps([row._asdict() for row in rows], indent=1) + "\n"


def as_markdown(rows: Sequence[Coverage]) -> str:
    """Gives the page of the documentation."""
    cells = [f"| {row.number} | `{row.name}` | {row.level} | {row.note.replace('|', chr(92) + '|')} |" for row in rows]
    lines = [_HEADING, summary(rows).rstrip() + ".\n", "| number | name | level | note |", "|---:|---|---|---|", *cells]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Sequence[Coverage]], str]] = {
    "table": as_table, "csv": as_csv, "json": as_json, "markdown": as_markdown,
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Runs the verb; gives the exit status."""
    parser = argparse.ArgumentParser(prog="asyncsentry syscalls", description="List the system calls.")
    parser.add_argument("--format", choices=tuple(FORMATS), default="table")
    parser.add_argument("--summary", action="store_true", help="only count how many there are of each level")
    options = parser.parse_args(arguments)
    rows = coverage()
    try:
        print(summary(rows) if options.summary else FORMATS[options.format](rows), end="", flush=True)
    except BrokenPipeError:
        return 141  # whoever read us has seen enough: as if SIGPIPE had ended us
    return 0
