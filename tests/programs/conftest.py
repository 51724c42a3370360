"""Fixtures for real programs: the root file system, a sandbox over it, the native oracle, and their comparison."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import uvloop
from inside import Compare, assert_same, run_inside
from rootfs import ROOTFS, Native, why_missing

from asyncsentry.sandbox import Result, Sandbox


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks everything here: it needs the root file system, and none of it is quick."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.programs)
            item.add_marker(pytest.mark.slow)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], object]]:
    """Runs the tests here on uvloop, as the command line does."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def rootfs() -> Path:
    """The root file system; without one, tests fail for root, who could have made it, and are skipped for others."""
    reason = why_missing()
    if reason is not None and os.getuid() == 0:
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    return ROOTFS


@pytest.fixture(scope="session")
def native(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Native:
    """Runs programs on the host's kernel."""
    return Native(tmp_path_factory.mktemp("native"))


@pytest.fixture
async def sandbox(rootfs: Path, nothing_left_behind: None) -> AsyncIterator[Sandbox]:
    """A fresh sandbox over the root file system."""
    async with Sandbox(root=str(rootfs)) as made:
        yield made


@pytest.fixture
def compare(native: Native, sandbox: Sandbox) -> Compare:
    """Runs a command natively and inside, and holds its standard output and exit status against each other."""

    async def run(argv: Sequence[str], *, input: bytes = b"", cwd: str = "/", limit_s: float = 60) -> Result:
        expected = await asyncio.to_thread(native.run, argv, input=input, cwd=cwd, timeout=limit_s)
        actual = await run_inside(sandbox, argv, input=input, cwd=cwd, limit_s=limit_s)
        assert_same(expected, actual)
        return actual

    return run
