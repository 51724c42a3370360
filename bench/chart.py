"""Draws the comparison as an SVG: one group of bars per call, on a logarithmic scale of microseconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

from bench.measure import Table
from bench.report import ROWS, number

SHOWN = ("getppid", "pread_4k", "stat", "open_close", "pipe", "mmap", "fork", "fork_exec")
COLOURS = {
    "native": "#9aa0a6", "bwrap": "#c9cdd2", "asyncsentry systrap": "#1a7f37", "asyncsentry ptrace": "#8bc79a",
    "runsc systrap": "#c2410c", "runsc ptrace": "#f0a878",
}  # fmt: skip
_WIDTH, _LEFT, _RIGHT, _TOP = 840, 215, 70, 64
_BAR, _GAP = 11, 12
_AXIS_HEIGHT = 34


def svg(table: Table, title: str) -> str:
    """Gives the picture of one variant's table."""
    systems = [system for system in COLOURS if system in table]
    calls = [call for call in SHOWN if any(call in table[system] for system in systems)]
    values = [table[system][call] / 1000 for system in systems for call in calls if call in table[system]]
    scale = _Scale(min(values), max(values))
    height = _TOP + len(calls) * (len(systems) * _BAR + _GAP) + _AXIS_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
        *_legend(systems),
        *_grid(scale, height),
    ]
    top = _TOP
    for call in calls:
        parts += _group(table, systems, call, top, scale)
        top += len(systems) * _BAR + _GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """Microseconds to horizontal places, logarithmic, from one power of ten to another."""

    def __init__(self, low: float, high: float) -> None:
        self.first, self.last = math.floor(math.log10(low)), math.ceil(math.log10(high))

    def place(self, microseconds: float) -> float:
        share = (math.log10(microseconds) - self.first) / (self.last - self.first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> Iterator[tuple[float, str]]:
        for power in range(self.first, self.last + 1):
            microseconds = 10.0**power
            label = f"{microseconds / 1000:g} ms" if power >= 3 else f"{microseconds:g} µs"
            yield self.place(microseconds), label


def _legend(systems: list[str]) -> Iterator[str]:
    left = 16.0
    for system in systems:
        yield f'<rect x="{left:.0f}" y="36" width="11" height="11" fill="{COLOURS[system]}"/>'
        yield f'<text x="{left + 16:.0f}" y="46">{escape(system)}</text>'
        left += 34 + 6.6 * len(system)


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    bottom = height - _AXIS_HEIGHT
    for x, label in scale.ticks():
        yield f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom}" stroke="#e3e5e8"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#5f6368">{label}</text>'
    yield (f'<text x="{_WIDTH - 16}" y="{bottom + 30}" text-anchor="end" fill="#5f6368" font-size="11">'
           "time per call, logarithmic; shorter is better</text>")


def _group(table: Table, systems: list[str], call: str, top: float, scale: _Scale) -> Iterator[str]:
    middle = top + len(systems) * _BAR / 2
    yield f'<text x="{_LEFT - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(ROWS[call][0])}</text>'
    for index, system in enumerate(systems):
        if call not in table[system]:
            continue
        y, microseconds = top + index * _BAR, table[system][call] / 1000
        width = max(scale.place(microseconds) - _LEFT, 1)
        yield f'<rect x="{_LEFT}" y="{y:.1f}" width="{width:.1f}" height="{_BAR - 2}" fill="{COLOURS[system]}"/>'
        yield (f'<text x="{_LEFT + width + 4:.1f}" y="{y + _BAR - 2.5:.1f}" font-size="10" fill="#3c4043">'
               f"{number(microseconds)}</text>")
