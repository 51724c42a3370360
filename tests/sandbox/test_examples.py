"""What the pages tell a stranger to run does what they say: console blocks, Python blocks, and the examples."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TIMEOUT_S = 60
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANYTHING = "…"


def blocks(language: str) -> list[object]:
    """Gives the blocks of a language in all pages, named by page and line."""
    found: list[object] = []
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 1
                found.append(pytest.param(match[2], id=f"{page.name}:{line}"))
    return found


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user in a checkout would, with the environment's programs first in PATH."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, check=False)


def matches(expected: str, got: str) -> bool:
    """Whether a text is the expected one, in which an ellipsis stands for anything."""
    pattern = ".*".join(map(re.escape, expected.strip().split(_ANYTHING)))
    return re.fullmatch(pattern, "\n".join(line.rstrip() for line in got.strip().splitlines()), re.DOTALL) is not None


def test_an_ellipsis_stands_for_anything() -> None:
    assert matches("a … c\n", "a b\nb c")
    assert not matches("a … c", "a b d")


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("console"))
def test_commands_print_what_the_page_says(block: str) -> None:
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        got = run(["bash", "-c", command]).stdout
        assert matches(expected, got), f"$ {command}\n{got}"


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block: str) -> None:
    done = run([sys.executable, "-W", "error", "-c", block])
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_redis_example_passes() -> None:
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        pytest.skip("redis-server and redis-cli are not installed here: `make run` installs them")
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/test_with_redis.py"])
    assert done.returncode == 0, done.stdout


def test_every_example_stands_in_the_page_about_the_library() -> None:
    page = (ROOT / "docs/library.md").read_text()
    assert [path.name for path in (ROOT / "examples").glob("*.py") if f"`examples/{path.name}`" not in page] == []
