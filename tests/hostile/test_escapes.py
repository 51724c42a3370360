"""Attempts to reach files, processes, sockets and settings of the host: canaries of each kind tell."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import FOLDERS, HERE, attack, hostile_sandbox

CASES = re.findall(r'\{"(\w+)", \w+\}', (HERE / "escapes.c").read_text())
SECRET = "TOP SECRET\n"
SETTINGS = ("kernel/hostname", "kernel/domainname", "kernel/core_pattern", "kernel/pid_max", "kernel/threads-max",
            "vm/overcommit_memory", "fs/file-max", "net/core/somaxconn", "kernel/modprobe", "kernel/randomize_va_space",
            "kernel/sysrq")

pytestmark = pytest.mark.slow


class Canaries:
    """What must stay as it is: a directory, a process in it, sockets, a FIFO, settings and the clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.secret = self.outside / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o640)
        self.volume = self._make_volume(folder / "volume")
        self.read_only = folder / "read-only"
        self.read_only.mkdir()
        (self.read_only / "plain").write_text("plain")
        with self.secret.open() as held:
            self.process = subprocess.Popen(["sleep", "1000"], cwd=self.outside, stdin=held, start_new_session=True)
        self.name = f"asyncsentry-canary-{os.getpid()}"
        self.sockets = [self._listen("\0" + self.name), self._listen(str(self.volume / "socket"))]
        self.fifo = os.open(self.volume / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        self.before = self._look()
        self.clocks = time.time() - time.monotonic()

    def _make_volume(self, volume: Path) -> Path:
        (volume / "folder").mkdir(parents=True)
        (volume / "folder/plain").write_text("plain")
        (volume / "plain").write_text("plain")
        (volume / "absolute").symlink_to(self.outside)
        (volume / "relative").symlink_to("../outside")
        (volume / "file").symlink_to(self.secret)
        (volume / "up").symlink_to("folder/../../outside")
        (volume / "proc").symlink_to(f"/proc/{os.getpid()}/cwd")
        os.mkfifo(volume / "fifo")
        return volume

    @staticmethod
    def _listen(name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(name)
        listener.listen()
        listener.setblocking(False)
        return listener

    def _look(self) -> object:
        state = self.secret.stat()
        return (
            sorted(os.listdir(self.outside)), self.secret.read_text(), state.st_mode, state.st_uid, state.st_mtime_ns,
            sorted(os.listdir(self.read_only)), (self.read_only / "plain").read_text(),
            (self.read_only / "plain").stat().st_mode, [_setting(name) for name in SETTINGS], os.uname(),
            os.sched_getaffinity(self.process.pid), os.getpriority(os.PRIO_PROCESS, self.process.pid),
            Path(f"/proc/{self.process.pid}/limits").read_text(),
        )  # fmt: skip

    def check(self) -> None:
        """Fails if anything was touched."""
        assert self._look() == self.before
        assert self.process.poll() is None, "a process of the host was killed"
        assert abs(time.time() - time.monotonic() - self.clocks) < 5, "the host's clock was set"
        for listener in self.sockets:
            with pytest.raises(BlockingIOError):
                listener.accept()
        assert not os.read(self.fifo, 100), "a guest wrote to a FIFO of the host's"
        for path in self.folder.rglob("*"):
            mode = path.lstat().st_mode
            assert not stat.S_ISCHR(mode), f"a device node was made on the host: {path}"
            assert not stat.S_ISBLK(mode), f"a device node was made on the host: {path}"

    def close(self) -> None:
        """Puts them away."""
        self.process.kill()
        self.process.wait()
        for listener in self.sockets:
            listener.close()
        os.close(self.fifo)


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text()
    except OSError:
        return ""


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    made = Canaries(tmp_path)
    yield made
    made.close()


def test_without_a_sandbox_the_secret_is_found(hostile_root: Path, canaries: Canaries) -> None:
    argv = [hostile_root / "bin/escapes", "up_and_out", canaries.outside, str(canaries.process.pid), canaries.name]
    assert subprocess.run(argv, check=False).returncode == 11


@pytest.mark.parametrize("overlay", ["memory", "none"])
@pytest.mark.parametrize("case", CASES)
async def test_nothing_outside_is_reached(nothing_left_behind: None, hostile_root: Path, canaries: Canaries, case: str,
                                          overlay: str, tmp_path: Path) -> None:
    root = hostile_root
    if overlay == "none":  # changes reach the host: each test its own root
        root = tmp_path / "root"
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True)
        subprocess.run(["cp", "-a", str(hostile_root / "bin"), str(root)], check=True)
    volumes = [f"{canaries.volume}:/mnt", f"{canaries.read_only}:/media:ro"]
    async with hostile_sandbox(root, may_ruin_files=True, volumes=volumes, overlay=overlay) as sandbox:
        argv = ["/bin/escapes", case, str(canaries.outside), str(canaries.process.pid), canaries.name]
        code = await attack(sandbox, argv, limit_s=30)
    canaries.check()
    assert code == 0
