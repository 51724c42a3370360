"""CPython's own regression tests, natively and inside: what passes natively passes inside.

Modules run in the background, two at a time, from the first test on; each pytest test waits for its module. What a
module does natively is kept in ``.cache``. ``cpython_expected.txt`` lists what may fail inside, with a reason per
line; a listed test that passes is a failure too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from rootfs import CACHE, ENTER, Native, fingerprint

HERE = Path(__file__).parent
RUNNER = (HERE / "cpython_runner.py").read_text()
EXPECTED = HERE / "cpython_expected.txt"
WORKERS = int(os.environ.get("CPYTHON_TEST_WORKERS", "2"))
LIMIT_S = 300

MODULES = """
    multiprocessing_spawn multiprocessing_fork signal subprocess io selectors threading largefile poll
    asyncio.test_subprocess asyncio.test_unix_events asyncio.test_events asyncio.test_streams asyncio.test_sendfile
    asyncio.test_base_events asyncio.test_selector_events asyncio.test_server asyncio.test_sock_lowlevel
    asyncio.test_threads fork1 wait3 wait4 os posix posixpath shutil tempfile glob fileio mmap fcntl select epoll pty
    thread time resource pwd
""".split()
"""Slowest first. Debian 12's Python has no test_tty."""

Outcomes = dict[str, tuple[str, str]]
"""Test: its outcome and a detail."""


@dataclass(frozen=True, slots=True)
class Run:
    """One module's results on both kernels."""

    native: Outcomes
    inside: Outcomes
    errors: str
    """What the run inside wrote to standard error."""

    def regressions(self) -> dict[str, str]:
        """Gives the tests that pass natively and not inside, with what became of them."""
        passed = [test for test, (outcome, _) in self.native.items() if outcome == "passed"]
        results = {test: self.inside.get(test, ("was never reached", "")) for test in passed}
        return {test: ": ".join(result) for test, result in results.items() if result[0] != "passed"}


def parse(records: str) -> Outcomes:
    """Reads the runner's lines; of several for one test the worst counts, and "started" alone is a crash or hang."""
    outcomes: Outcomes = {}
    for line in records.splitlines():
        try:
            test, outcome, detail = json.loads(line)
        except ValueError:  # cut off when the program was killed
            continue
        if outcomes.get(test, ("", ""))[0] != "failed":
            outcomes[test] = (outcome, detail)
    return outcomes


def run_natively(native: Native, module: str) -> Outcomes:
    """Runs a module on the host's kernel, or remembers what that gave."""
    key = sha256(f"{fingerprint()} {os.uname().release} {ENTER} {RUNNER}".encode()).hexdigest()[:16]
    cached = CACHE / f"cpython-{key}" / f"{module}.jsonl"
    if not cached.exists():
        result = native.run(["python3", "-c", RUNNER, f"test_{module}"], timeout=LIMIT_S)
        assert result.exit_code == 0, result.stderr.decode(errors="replace")
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(result.stdout)
    return parse(cached.read_text())


def run_module(native: Native, module: str) -> Run:
    """Runs a module on both kernels."""
    expected = run_natively(native, module)
    command = [sys.executable, str(HERE / "drive.py"), str(LIMIT_S), "host", "python3", "-c", RUNNER, f"test_{module}"]
    inside = subprocess.run(command, capture_output=True, check=False)
    return Run(expected, parse(inside.stdout.decode()), inside.stderr.decode(errors="replace"))


@pytest.fixture(scope="module")
def runs(native: Native, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Run]]]:
    """Every module asked for, running in the background."""
    wanted = {item.callspec.params["module"] for item in request.session.items
              if isinstance(item, pytest.Function) and "module" in getattr(item, "fixturenames", ())}  # fmt: skip
    with ThreadPoolExecutor(WORKERS) as pool:
        yield {module: pool.submit(run_module, native, module) for module in MODULES if module in wanted}
        pool.shutdown(cancel_futures=True)


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def allowances() -> dict[str, str]:
    """Reads which tests may fail, and why."""
    lines = [line for line in EXPECTED.read_text().splitlines() if line and not line.startswith("#")]
    return {test: reason for test, _, reason in (line.partition(" ") for line in lines)}


@pytest.mark.limit_s(3 * LIMIT_S)
def test_what_passes_natively_passes_inside(runs: dict[str, Future[Run]], module: str) -> None:
    run = runs[module].result()
    regressions, allowed = run.regressions(), allowances()
    unexpected = {test: what for test, what in regressions.items() if test not in allowed}
    assert not unexpected, "\n".join([*(f"{test}: {what}" for test, what in unexpected.items()), run.errors[-6000:]])
    healed = [test for test in allowed if test in run.inside and test not in regressions]
    assert not healed, f"these pass now, take them out of {EXPECTED.name}: {healed}"


def test_at_least_98_percent_pass(runs: dict[str, Future[Run]]) -> None:
    finished = [future.result() for future in runs.values()]
    passed_natively = sum(outcome == "passed" for run in finished for outcome, _ in run.native.values())
    failed = sum(len(run.regressions()) for run in finished)
    print(f"CPython's tests: {passed_natively - failed} of {passed_natively} pass inside")
    assert failed <= 0.02 * passed_natively
