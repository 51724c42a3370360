"""``asyncsentry do`` over the root file system: strace's form, bad input, and a terminal of the user's own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "asyncsentry", "do"]
CALL = re.compile(r"(\[pid +\d+\] )?\w+\(.*\) += (-?\d+|0x[0-9a-f]+|\?)( \w+ \(.*\))?|.*(---|\+\+\+|exited).*")


def do(rootfs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "--root", str(rootfs), *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=60, check=False, text=True)  # fmt: skip


def test_strace_of_ls_reads_as_straces(rootfs: Path) -> None:
    done = do(rootfs, "--strace", "--", "ls", "/usr")
    assert done.returncode == 0
    assert done.stdout.split() == sorted(os.listdir(rootfs / "usr"))
    lines = done.stderr.splitlines()
    assert not [line for line in lines if not CALL.fullmatch(line)]
    text = "\n".join(lines)
    for expected in (r'execve\("(/usr)?/bin/ls"|mmap\(', r'openat\(AT_FDCWD, "/usr", O_RDONLY\|.*O_DIRECTORY.*\) += \d',
                     r"getdents64\(\d+, ", r'"/etc/ld.so.preload".* = -1 ENOENT \(No such file or directory\)',
                     r"exit_group\(0\) += \?"):  # fmt: skip
        assert re.search(expected, text), f"no line has {expected}"


@pytest.mark.parametrize("damage", [
    lambda elf: elf[:100], lambda elf: elf[:5000], lambda elf: elf[:18] + b"\x03" + elf[19:],
    lambda elf: elf[:16] + b"\x09" + elf[17:], lambda elf: elf[:54] + b"\xff\xff" + elf[56:],
], ids=["cut in the headers", "cut before its data", "for another machine", "of no known type", "of odd headers"])
def test_a_damaged_program_is_one_clear_line(
        rootfs: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(damage((rootfs / "usr/bin/true").read_bytes()))
    broken.chmod(0o755)
    done = do(rootfs, "--volume", f"{tmp_path}:/mnt", "--", "/mnt/broken")
    assert done.returncode == 126
    assert done.stderr.count("\n") == 1


def test_an_unreadable_root_is_one_clear_line(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0)
    tmp_path.chmod(0o755)
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    try:
        done = subprocess.run([*COMMAND, "--root", str(root), "--", "true"], capture_output=True, timeout=60,
                              check=False, text=True, **nobody)  # type: ignore[call-overload]
    except PermissionError:
        pytest.skip("nobody may run this Python: it is in a home directory")
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert str(root) in done.stderr


class Screen:
    """A terminal of the host's with ``asyncsentry do`` on it."""

    def __init__(self, rootfs: Path, *command: str) -> None:
        self.master, slave = pty.openpty()
        self.slave = slave
        self.resize(24, 80)
        self.process = subprocess.Popen([*COMMAND, "--root", str(rootfs), "--env", "TERM=dumb", "--env", "PS1=ready> ",
                                         "--", *command], stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True, preexec_fn=self._take_terminal)  # fmt: skip
        self.seen = b""

    def _take_terminal(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def resize(self, rows: int, columns: int) -> None:
        """Changes the window's size; whoever is in the foreground hears of it."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Types."""
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        """Waits until the text has been printed since the last one that was expected."""
        deadline = time.monotonic() + 30
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
            if select.select([self.master], [], [], 1)[0]:
                self.seen += os.read(self.master, 4096)
        self.seen = self.seen.partition(text.encode())[2]

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def screen(rootfs: Path) -> Iterator[Screen]:
    made = Screen(rootfs, "bash", "--norc", "--noprofile")
    yield made
    made.close()


def test_a_shell_on_a_terminal_is_as_if_it_ran_directly(screen: Screen) -> None:
    before = termios.tcgetattr(screen.slave)
    screen.expect("ready> ")
    screen.type("tty; stty size\r")
    screen.expect("/dev/pts/")
    screen.expect("24 80")
    screen.resize(30, 100)
    screen.type("stty size\r")
    screen.expect("30 100")
    screen.type("sleep 100\r")
    screen.expect("sleep 100")
    time.sleep(0.3)  # until the shell has put it into the foreground: nothing shows that
    screen.type("\x03")
    screen.expect("ready> ")
    screen.type("echo status $?\r")
    screen.expect("status 130")
    screen.type("cat\r")
    screen.expect("cat")
    time.sleep(0.3)
    screen.type("\x1a")
    screen.expect("Stopped")
    screen.expect("ready> ")
    screen.type("fg\r")
    screen.expect("cat\r\n")
    screen.type("echoed by cat\r")
    screen.expect("echoed by cat\r\nechoed by cat")
    screen.type("\x04exit 9\r")
    screen.expect("exit")
    assert screen.process.wait(30) == 9
    assert termios.tcgetattr(screen.slave) == before
