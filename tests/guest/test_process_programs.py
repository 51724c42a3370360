"""Processes, threads and futexes in a real program: each case of ``processes.c``, natively and in a sandbox."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asyncsentry.sandbox import Sandbox

SOURCE = Path(__file__).with_name("processes.c")
CASES = re.findall(r'\{"(\w+)", \w+\}', SOURCE.read_text())

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("processes") / "processes"
    options = ["-O1", "-Wall", "-Wextra", "-Wno-unused-result", "-static", "-pthread"]
    subprocess.run(["gcc", *options, "-o", built, SOURCE], check=True)
    return built


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_case_passes_natively(program: Path, case: str) -> None:
    native = subprocess.run([program, case], capture_output=True, timeout=20, check=False)
    assert (native.returncode, native.stderr) == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
async def test_the_case_passes_in_a_sandbox(program: Path, case: str) -> None:
    async with Sandbox() as sandbox:
        result = await sandbox.run([str(program), case], timeout=20)
    assert (result.exit_code, result.stderr) == (0, b"")
