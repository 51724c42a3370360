"""``asyncsentry do`` as a shell sees it: statuses, one line for what went wrong, streams, mount points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "asyncsentry"]
pytestmark = pytest.mark.slow


def do(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, "do", *arguments], input=stdin, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(("script", "status"), [
    ("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("no-such-command", 127),
    ("/etc/passwd", 126),
])  # fmt: skip
def test_the_exit_status_is_the_programs(script: str, status: int) -> None:
    assert do("--", "sh", "-c", script).returncode == status


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (["--", "no-such-program"], 127, "no-such-program: not found"),
    (["--", "/etc"], 126, "/etc: cannot be run: permission denied"),
    (["--root", "/nonexistent", "--", "true"], 125, "/nonexistent is no directory"),
    (["--root", "/etc/passwd", "--", "true"], 125, "/etc/passwd is no directory"),
    (["--volume", "/nonexistent:/mnt", "--", "true"], 125, "/nonexistent does not exist"),
    (["--cwd", "/nonexistent", "--", "true"], 125, "working directory /nonexistent"),
    (["--volume", "x", "--", "true"], 2, "SRC:DST[:ro]"),
    (["--user", "abc", "--", "true"], 2, "UID[:GID]"),
    (["--memory", "12x", "--", "true"], 2, "a size is a number"),
    (["--bogus", "--", "true"], 2, "--bogus"),
    ([], 2, "no command given"),
])  # fmt: skip
def test_what_cannot_be_is_one_clear_line(arguments: list[str], status: int, words: str) -> None:
    done = do(*arguments)
    assert done.returncode == status
    assert words in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("content", [b"\x7fELF", b"\x7fELF" + b"\xff" * 60, b"garbage", b"#!/nonexistent\n"],
                         ids=["truncated", "corrupt", "text", "script"])
def test_a_broken_program_is_refused(tmp_path: Path, content: bytes) -> None:
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(0o755)
    done = do("--volume", f"{tmp_path}:/mnt", "--", "/mnt/program")
    assert done.returncode == (127 if content.startswith(b"#!") else 126)
    assert done.stderr.count(b"\n") == 1


def test_streams_are_the_callers(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file:
        command = [*COMMAND, "do", "--", "sh", "-c", "cat; echo err >&2"]
        subprocess.run(command, input=b"through", stdout=file, stderr=file, timeout=60, check=True)
    assert output.read_bytes() == b"througherr\n"


def test_options_reach_the_program(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = do("--env", "A=1", "--cwd", "/usr", "--user", "12:34", "--hostname", "box", "--volume",
              f"{tmp_path}:/new/place:ro", "--", "sh", "-c", "echo $A; pwd; id -u; id -g; hostname; touch /new/place/x")
    assert done.stdout == b"1\n/usr\n12\n34\nbox\n"
    assert b"Read-only file system" in done.stderr


def test_strace_prints_calls() -> None:
    done = do("--strace", "--", "cat", "/etc/hostname")
    lines = done.stderr.decode()
    assert 'openat(AT_FDCWD, "/etc/hostname", O_RDONLY' in lines
    assert "exit_group(0) = ?" in lines


def test_a_root_without_mount_points_gets_them(tmp_path: Path) -> None:
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("needs a static busybox")
    (tmp_path / "busybox").write_bytes(busybox.read_bytes())
    (tmp_path / "busybox").chmod(0o755)
    done = do("--root", str(tmp_path), "--", "/busybox", "sh", "-c", "/busybox ls / /proc/self/exe")
    assert done.stdout.split() == [b"/proc/self/exe", b"/:", b"busybox", b"dev", b"proc", b"sys"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["busybox"]
