"""Random walks through the calls on files, compared with the host's own tmpfs step by step: Linux is the oracle."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import stat as stat_bits
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_guest import FileGuest, make_file_guest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import AT_FDCWD

LIBC = ctypes.CDLL(None, use_errno=True)
USER = 1000

PATHS = st.sampled_from(
    ["a", "b", "d", "e", "d/a", "d/b", "e/a", "d/e", "d/e/a", "l", "d/l", "l/a", "a/", "d/", "l/", "d/.", "d/..",
     "d/../a", ".", "..", "a/b", "d/e/../../b", "e/", "d/e/", ""]
)  # fmt: skip
# No absolute targets: a step must never lead out of the test's own directory on the host.
TARGETS = st.sampled_from(["a", "d", "d/e", "e", "l", "../a", "nothing", ".", "..", "d/", "b/"])
NEST = "1/2/3/4/5/6/7/8"
"""Directories around the working directory, more than a step can climb out of."""
FLAGS = st.lists(
    st.sampled_from([os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_WRONLY, os.O_RDWR,
                     os.O_APPEND, os.O_PATH]), max_size=3,
).map(lambda flags: sum(set(flags)))  # fmt: skip
MODES = st.sampled_from(
    [0o777, 0o755, 0o700, 0o644, 0o600, 0o444, 0o555, 0o711, 0o070, 0o007, 0, 0o2775, 0o4755, 0o6777]
)
USERS = st.sampled_from([0, USER])

STEP = st.one_of(
    st.tuples(st.just("mkdir"), PATHS, MODES),
    st.tuples(st.just("rmdir"), PATHS),
    st.tuples(st.just("unlink"), PATHS),
    st.tuples(st.just("open"), PATHS, FLAGS, MODES),
    st.tuples(st.just("rename"), PATHS, PATHS, st.sampled_from([0, 0, 0, 1, 2, 3])),
    st.tuples(st.just("link"), PATHS, PATHS, st.sampled_from([0, 0x400])),
    st.tuples(st.just("symlink"), TARGETS, PATHS),
    st.tuples(st.just("stat"), PATHS, st.booleans()),
    st.tuples(st.just("readlink"), PATHS),
    st.tuples(st.just("chmod"), PATHS, MODES),
    st.tuples(st.just("chown"), PATHS, st.sampled_from([-1, 0, USER, 1001]), st.sampled_from([-1, 0, USER, 1001])),
    st.tuples(st.just("truncate"), PATHS, st.integers(0, 100)),
    st.tuples(st.just("mkfifo"), PATHS, MODES),
    st.tuples(st.just("access"), PATHS, st.integers(0, 7)),
    st.tuples(st.just("list"), PATHS),
    st.tuples(st.just("utime"), PATHS, st.booleans()),
    st.tuples(st.just("become"), st.sampled_from([0, USER, USER])),
)


@st.composite
def walks(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Draws a small tree of files of two users, and then steps in it."""
    tree = [
        ("mkdir", "d", draw(MODES)), ("mkdir", "e", draw(MODES)), ("become", draw(USERS)),
        ("mkdir", "d/e", draw(MODES)), ("open", "a", os.O_CREAT, draw(MODES)), ("become", draw(USERS)),
        ("open", "d/a", os.O_CREAT, draw(MODES)), ("open", "b", os.O_CREAT, draw(MODES)),
        ("symlink", draw(TARGETS), "l"), ("symlink", draw(TARGETS), "e/a"), ("become", draw(USERS)),
    ]  # fmt: skip
    return tree + draw(st.lists(STEP, min_size=1, max_size=25))


class Host:
    """The host's answers, in a directory of its tmpfs that plays the root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def step(self, name: str, *arguments: Any) -> Any:
        """Does one step: gives its value, or the errno's name."""
        try:
            return getattr(self, name)(*arguments)
        except OSError as error:
            return errnos.BY_NUMBER[error.errno or 0].__name__

    def checked(self, result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), "failed")
        return result

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def open(self, path: str, flags: int, mode: int) -> None:
        os.close(os.open(path, flags | os.O_NONBLOCK, mode))

    def rename(self, old: str, new: str, flags: int) -> None:
        self.checked(LIBC.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags))

    def link(self, old: str, new: str, flags: int) -> None:
        self.checked(LIBC.linkat(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags))

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path)

    def stat(self, path: str, follow: bool) -> Any:
        return describe(os.stat(path, follow_symlinks=follow))

    def readlink(self, path: str) -> str:
        return os.readlink(path)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(path, size)

    def mkfifo(self, path: str, mode: int) -> None:
        os.mkfifo(path, mode)

    def access(self, path: str, mode: int) -> None:
        self.checked(LIBC.syscall(439, AT_FDCWD, path.encode(), mode, 0x200))

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def utime(self, path: str, to_now: bool) -> None:
        os.utime(path, None if to_now else (1, 2))

    def become(self, uid: int) -> None:
        LIBC.setfsgid(uid)
        LIBC.setfsuid(uid)


class Ours(Host):
    """Our answers to the same."""

    def __init__(self, guest: FileGuest, loop: asyncio.AbstractEventLoop) -> None:
        self.guest = guest
        self.loop = loop

    def step(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self, name)(*arguments)
        except errnos.LinuxError as error:
            return error.name

    def run(self, name: str, *arguments: Any) -> int:
        return self.loop.run_until_complete(self.guest.call(name, *arguments))

    def mkdir(self, path: str, mode: int) -> None:
        self.run("mkdir", path, mode)

    def rmdir(self, path: str) -> None:
        self.run("rmdir", path)

    def unlink(self, path: str) -> None:
        self.run("unlink", path)

    def open(self, path: str, flags: int, mode: int) -> None:
        self.run("close", self.run("openat", AT_FDCWD, path, flags | os.O_NONBLOCK, mode))

    def rename(self, old: str, new: str, flags: int) -> None:
        self.run("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)

    def link(self, old: str, new: str, flags: int) -> None:
        self.run("linkat", AT_FDCWD, old, AT_FDCWD, new, flags)

    def symlink(self, target: str, path: str) -> None:
        self.run("symlink", target, path)

    def stat(self, path: str, follow: bool) -> Any:
        self.run("newfstatat", AT_FDCWD, path, 0x102000, 0 if follow else 0x100)
        fields = self.guest.read_stat()
        return describe(os.stat_result((fields[3], 0, 0, fields[2], fields[4], fields[5], fields[8], 0, 0, 0)))

    def readlink(self, path: str) -> str:
        count = self.run("readlink", path, 0x102000, 100)
        return self.guest.memory.read(0x102000, count).decode()

    def chmod(self, path: str, mode: int) -> None:
        self.run("chmod", path, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self.run("chown", path, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF)

    def truncate(self, path: str, size: int) -> None:
        self.run("truncate", path, size)

    def mkfifo(self, path: str, mode: int) -> None:
        self.run("mknod", path, stat_bits.S_IFIFO | mode, 0)

    def access(self, path: str, mode: int) -> None:
        self.run("faccessat2", AT_FDCWD, path, mode, 0x200)

    def list(self, path: str) -> list[str]:
        if not path:
            raise errnos.ENOENT
        return [name for name in self.loop.run_until_complete(self.guest.listing(path)) if name not in (".", "..")]

    def utime(self, path: str, to_now: bool) -> None:
        times = 0 if to_now else 0x104000
        self.guest.memory.write(0x104000, b"".join(number.to_bytes(8, "little") for number in (1, 0, 2, 0)))
        self.run("utimensat", AT_FDCWD, path, times, 0)

    def become(self, uid: int) -> None:
        self.guest.become(uid)


def describe(stat: os.stat_result) -> tuple[int, ...]:
    """What of a stat result must be equal."""
    size = 0 if stat_bits.S_ISDIR(stat.st_mode) else stat.st_size
    return stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid, size


@pytest.fixture(scope="module")
def shm() -> Iterator[Path]:
    """A directory of the host's tmpfs, and a quiet process state."""
    if os.geteuid():
        pytest.skip("needs root, to make files of different owners")
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("the host lets everybody link everything")
    directory = Path(tempfile.mkdtemp(dir="/dev/shm"))
    directory.chmod(0o755)
    old_umask, here, groups = os.umask(0o022), Path.cwd(), os.getgroups()
    os.setgroups([])
    yield directory
    os.setgroups(groups)
    os.chdir(here)
    os.umask(old_umask)
    shutil.rmtree(directory)


@pytest.mark.root
@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=walks())
def test_every_step_ends_as_on_the_host(shm: Path, steps: list[tuple[Any, ...]]) -> None:
    outer = Path(tempfile.mkdtemp(dir=shm))
    outer.chmod(0o755)
    root = outer / NEST
    root.mkdir(parents=True)
    root.chmod(0o777)
    os.chdir(root)
    loop = asyncio.new_event_loop()
    try:
        guest = loop.run_until_complete(make_file_guest())
        for level in NEST.split("/"):
            loop.run_until_complete(guest.mkdir(level))
            loop.run_until_complete(guest.call("chdir", level))
        loop.run_until_complete(guest.call("chmod", ".", 0o777))
        host, ours = Host(root), Ours(guest, loop)
        done: list[Any] = []
        for step in steps:
            expected = host.step(*step)
            done.append((step, expected))
            assert (ours.step(*step), done) == (expected, done)
    finally:
        LIBC.setfsuid(0)
        LIBC.setfsgid(0)
        os.chdir(shm)
        shutil.rmtree(outer)
        loop.close()
