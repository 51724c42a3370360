"""The benchmark runs, from compiling its program to the picture, in a version that takes a second."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest

from bench.chart import SHOWN, svg
from bench.footprint import second_sandbox_ns
from bench.measure import FREE, time_calls, time_start
from bench.report import ROWS, Findings, markdown, number
from bench.systems import CANDIDATES, NATIVE, System, available

ASYNCSENTRY = next(system for system in CANDIDATES if system.name == "asyncsentry systrap")


@pytest.mark.slow
def test_every_call_is_timed_in_every_system_and_reported() -> None:
    systems = [NATIVE, ASYNCSENTRY]
    once = dataclasses.replace(FREE, rounds=1)
    samples = time_calls(systems, once, budget_ms=1)
    assert not samples.failures
    table = samples.medians()
    assert {system: set(row) for system, row in table.items()} == {system.name: set(ROWS) for system in systems}
    findings = Findings(calls={FREE.name: table}, start=time_start(systems, 1).medians())
    report = markdown(findings)
    for title, _ in ROWS.values():
        assert f"| {title} | " in report
    ElementTree.fromstring(svg(table, "a title with < in it"))


def test_a_picture_shows_each_figure() -> None:
    table = {"native": dict.fromkeys(SHOWN, 500.0), "runsc ptrace": dict.fromkeys(SHOWN, 2.5e6)}
    texts = [element.text for element in ElementTree.fromstring(svg(table, "t")).iter() if element.text]
    assert texts.count(number(0.5)) == texts.count(number(2500)) == len(SHOWN)


def test_a_system_that_cannot_run_is_named_with_the_reason() -> None:
    working, missing = available([NATIVE, System("absent", ("/nonexistent",)), System("broken", ("/bin/false",))])
    assert working == [NATIVE]
    assert missing == {"absent": "not installed", "broken": "exit status 1"}


async def test_a_second_sandbox_is_timed(nothing_left_behind: None) -> None:
    assert await second_sandbox_ns(1) > 0
