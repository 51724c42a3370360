"""Guest programs in C: each case natively first, then in the sandbox on every platform; both must tell the same.

A case prints what it saw, line by line (a transcript), or prints only what went wrong. Adding a case means a
function in one of the ``.c`` files and a row in its ``cases`` table.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asyncsentry import Sandbox

HERE = Path(__file__).parent
OPTIONS = "-O1 -Wall -Wextra -Wno-nonnull -Wno-unused-result -static -pthread".split()
NETWORKS = {"sockets": "host"}
CASES = [
    (source.stem, case)
    for source in sorted(HERE.glob("*.c"))
    for case in re.findall(r'\{"(\w+)", \w+\}', source.read_text())
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the cases change users, owners and device nodes: they need root"),
]


class Programs:
    """Compiles each program once, and keeps what it says natively."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: dict[tuple[str, str], tuple[int, list[bytes]]] = {}
        folder.chmod(0o755)

    def path(self, name: str) -> str:
        built = self._folder / name
        if not built.exists():
            subprocess.run(["cc", *OPTIONS, "-o", built, HERE / f"{name}.c"], check=True)
        return str(built)

    def native(self, name: str, case: str) -> tuple[int, list[bytes]]:
        if (name, case) not in self._told:
            done = subprocess.run([self.path(name), case], capture_output=True, timeout=20, check=False)
            assert (done.returncode, done.stderr) == (0, b""), "the case does not hold on this host"
            self._told[name, case] = done.returncode, done.stdout.splitlines()
        return self._told[name, case]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("guest"))


@pytest.mark.parametrize("platform", ["systrap", "ptrace"])
@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}-{case}" for name, case in CASES])
async def test_the_sandbox_tells_what_linux_tells(programs: Programs, name: str, case: str, platform: str,
                                                  nothing_left_behind: None) -> None:
    status, transcript = programs.native(name, case)
    async with Sandbox(network=NETWORKS.get(name, "none"), platform=platform) as sandbox:
        result = await sandbox.run([programs.path(name), case], timeout=40)
    assert result.stdout.splitlines() == transcript
    assert (result.exit_code, result.stderr) == (status, b"")
