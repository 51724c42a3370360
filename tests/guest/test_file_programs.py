"""Files in a real program: each case of ``files.c``, natively and in a sandbox."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asyncsentry.sandbox import Sandbox

SOURCE = Path(__file__).with_name("files.c")
CASES = re.findall(r'\{"(\w+)", \w+\}', SOURCE.read_text())

SHM = Path("/dev/shm")

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("files") / "files"
    options = ["-O1", "-Wall", "-Wextra", "-Wno-nonnull", "-Wno-unused-result", "-static"]
    subprocess.run(["gcc", *options, "-o", built, SOURCE], check=True)
    return built


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def transcript(program: Path, case: str) -> list[str]:
    before = set(SHM.iterdir())
    native = subprocess.run([program, case], capture_output=True, timeout=20, check=True)
    for left in set(SHM.glob("files??????")) - before:
        shutil.rmtree(left)
    lines = native.stdout.decode().splitlines()
    assert len(lines) > 10
    return lines


@pytest.mark.slow
async def test_the_sandbox_answers_as_linux_does(program: Path, case: str, transcript: list[str]) -> None:
    async with Sandbox() as sandbox:
        result = await sandbox.run([str(program), case], timeout=20)
    assert result.stdout.decode().splitlines() == transcript
    assert result.exit_code == 0
