"""A gofer answers a hostile sentry with errors, or hangs up; it never leaves its mounts."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsentry.fs.gofer import protocol
from asyncsentry.fs.gofer.connection import HostMount, spawn
from asyncsentry.fs.gofer.protocol import REPLY, U32, Malformed, pack_request, pack_text

SHARED, READ_ONLY = 1, 2
SECRET = b"the secret of the host"


class RawGofer:
    """A gofer and a blocking socket to it, to send it anything."""

    def __init__(self, inside: Path) -> None:
        self.socket, self.process = spawn([HostMount(str(inside)), HostMount(str(inside), read_only=True)])
        self.socket.settimeout(10)

    def send(self, message: bytes) -> tuple[bytes, list[int]]:
        """Gives one message of the answer, empty if the gofer hung up."""
        try:
            self.socket.send(message)
            answer, fds, _, _ = socket.recv_fds(self.socket, protocol.MAX_MESSAGE, 64)
        except (BrokenPipeError, ConnectionResetError):
            return b"", []
        return answer, fds

    def ask(self, operation: int, payload: bytes) -> tuple[int, bytes]:
        """Gives errno and payload of the answer to one request."""
        answer, fds = self.send(pack_request(7, operation, payload))
        for fd in fds:
            os.close(fd)
        request_id, error, _, count = REPLY.unpack_from(answer)
        assert request_id == 7
        return error, answer[REPLY.size : REPLY.size + count]

    def close(self) -> None:
        self.socket.close()
        self.process.wait(10)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "inside/sub/deeper").mkdir(parents=True)
    (tmp_path / "inside/file").write_bytes(b"public")
    (tmp_path / "inside/out").symlink_to("../secret")
    (tmp_path / "inside/up").symlink_to("..")
    (tmp_path / "inside/self").symlink_to("/proc/self/root")
    return tmp_path / "inside"


@pytest.fixture
def gofer(inside: Path) -> Iterator[RawGofer]:
    gofer = RawGofer(inside)
    yield gofer
    gofer.close()


def target(path: bytes, handle: int = SHARED) -> bytes:
    return protocol.pack_target(handle, path)


ESCAPES = [b"..", b".", b"sub/../..", b"/", b"/etc/passwd", b"sub//file", b"sub/", b"a\0b", b"x" * 256, b"./file"]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_is_not_plain_names_is_refused(gofer: RawGofer, path: bytes) -> None:
    assert gofer.ask(protocol.OPEN, target(path) + U32.pack(0))[0] == errno.EPROTO
    assert gofer.ask(protocol.WALK, target(b"") + U32.pack(0) + pack_text(path))[0] == errno.EPROTO
    make = pack_text(path) + bytes(16) + pack_text(b"")
    assert gofer.ask(protocol.MKDIR, target(b"") + make)[0] == errno.EPROTO
    assert gofer.ask(protocol.UNLINK, target(b"") + pack_text(path) + U32.pack(0))[0] == errno.EPROTO
    assert gofer.ask(protocol.GETATTR, target(b"file"))[0] == 0


@pytest.mark.parametrize("path", [b"out", b"up/secret", b"self/etc/passwd", b"self"])
def test_links_are_never_followed(gofer: RawGofer, path: bytes) -> None:
    error, _ = gofer.ask(protocol.OPEN, target(path) + U32.pack(0))
    assert error in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR)
    assert gofer.ask(protocol.SETATTR, target(path) + protocol.CHANGE.pack(8, 0, 0, 0, 0, 0, 0))[0] != 0


def test_a_directorys_descriptor_is_never_given(gofer: RawGofer) -> None:
    for path in (b"", b"sub"):
        assert gofer.ask(protocol.OPEN, target(path) + U32.pack(os.O_RDONLY))[0] == errno.ENXIO


@pytest.mark.parametrize("flags", [os.O_CREAT, os.O_TRUNC | os.O_RDWR, os.O_PATH, os.O_DIRECTORY, os.O_TMPFILE, 3])
def test_only_plain_ways_of_opening_are_known(gofer: RawGofer, flags: int) -> None:
    assert gofer.ask(protocol.OPEN, target(b"file") + U32.pack(flags))[0] == errno.EINVAL


def test_links_and_renames_stay_in_one_mount(gofer: RawGofer) -> None:
    rename = target(b"") + target(b"", READ_ONLY) + pack_text(b"file") + pack_text(b"x") + U32.pack(0)
    assert gofer.ask(protocol.RENAME, rename)[0] == errno.EXDEV
    link = target(b"file", READ_ONLY) + target(b"") + pack_text(b"x")
    assert gofer.ask(protocol.LINK, link)[0] == errno.EXDEV


def test_the_read_only_view_of_a_shared_directory_refuses_changes(gofer: RawGofer, inside: Path) -> None:
    make = pack_text(b"x") + bytes(16)
    for operation, payload in (
        (protocol.CREATE, target(b"", READ_ONLY) + make),
        (protocol.MKDIR, target(b"", READ_ONLY) + make + pack_text(b"")),
        (protocol.OPEN, target(b"file", READ_ONLY) + U32.pack(os.O_RDWR)),
        (protocol.SETATTR, target(b"file", READ_ONLY) + protocol.CHANGE.pack(1, 0o777, 0, 0, 0, 0, 0)),
    ):
        assert gofer.ask(operation, payload)[0] == errno.EROFS
    assert sorted(os.listdir(inside)) == ["file", "out", "self", "sub", "up"]


def test_unknown_handles_and_operations_are_errors(gofer: RawGofer) -> None:
    assert gofer.ask(protocol.GETATTR, target(b"", 999))[0] == errno.EBADF
    assert gofer.ask(999, b"")[0] == errno.EPROTO
    assert gofer.ask(protocol.ATTACH, U32.pack(2))[0] == errno.ENOENT
    assert gofer.ask(protocol.CLOSE, U32.pack(SHARED) + U32.pack(999))[0] == 0
    assert gofer.ask(protocol.GETATTR, target(b""))[0] == 0


@pytest.mark.parametrize("message", [b"\0", b"x" * 9, protocol.REQUEST.pack(1, 1, 1 << 31), b"\xff" * 4096])
def test_what_is_no_message_ends_the_connection(gofer: RawGofer, message: bytes) -> None:
    assert gofer.send(message) == (b"", [])
    assert gofer.process.wait(10) == 0


@pytest.mark.slow
def test_random_requests_neither_escape_nor_crash(inside: Path) -> None:
    """Seeded noise: frames with plausible and wild fields. Whatever happens, the outside stays as it is."""
    noise = random.Random(20260)
    gofer = RawGofer(inside)
    before = sorted(os.listdir(inside.parent))
    for _ in range(400):
        message = b"".join(_random_frame(noise) for _ in range(noise.randint(1, 6)))
        answer, fds = gofer.send(message)
        assert SECRET not in answer
        for fd in fds:
            path = os.readlink(f"/proc/self/fd/{fd}")
            os.close(fd)
            assert path.startswith((f"{inside}/", "socket:"))
        if not answer:
            assert gofer.process.wait(10) == 0  # hung up, not crashed
            gofer.close()
            gofer = RawGofer(inside)
        _drain(gofer)
    gofer.close()
    assert gofer.process.returncode == 0
    assert sorted(os.listdir(inside.parent)) == before
    assert (inside.parent / "secret").read_bytes() == SECRET


def _random_frame(noise: random.Random) -> bytes:
    names = [b"file", b"sub", b"sub/deeper", b"out", b"up", b"..", b"", b"a", b"b", b"a/b", b"user.x", b"\0", b"/etc"]
    fields = [
        lambda: U32.pack(noise.choice([0, 1, 2, 3, 7, 0o644, os.O_RDWR, 1 << 31, 0xFFFFFFFF])),
        lambda: pack_text(noise.choice(names)),
        lambda: target(noise.choice(names), noise.choice([0, 1, 1, 1, 2, 3, 4])),
        lambda: noise.randbytes(noise.randint(0, 40)),
    ]
    payload = target(noise.choice(names), noise.choice([1, 1, 1, 2, 3]))
    payload += b"".join(noise.choice(fields)() for _ in range(noise.randint(0, 6)))
    if noise.random() < 0.02:
        payload = payload[: len(payload) // 2]
    frame = pack_request(noise.randrange(1 << 32), noise.randint(0, 24), payload)
    return frame[: noise.randint(1, len(frame))] if noise.random() < 0.02 else frame


def _drain(gofer: RawGofer) -> None:
    """Takes what else has come: an answer may be several messages."""
    gofer.socket.setblocking(False)
    try:
        while True:
            answer, fds, _, _ = socket.recv_fds(gofer.socket, protocol.MAX_MESSAGE, 64)
            for fd in fds:
                os.close(fd)
            if not answer:
                break
    except BlockingIOError:
        pass
    finally:
        gofer.socket.settimeout(10)


@pytest.mark.parametrize("path", [b"proc", b"sys"])
def test_the_hosts_kernel_file_systems_look_empty_below_its_root(path: bytes) -> None:
    gofer = RawGofer(Path("/"))
    inside = {b"proc": b"/1/environ", b"sys": b"/kernel/uevent_seqnum"}[path]
    assert gofer.ask(protocol.READDIR, target(path) + U32.pack(0)) == (0, b"")
    assert gofer.ask(protocol.GETATTR, target(path))[0] == 0
    assert gofer.ask(protocol.OPEN, target(path + inside) + U32.pack(0))[0] == errno.EACCES
    error, rows = gofer.ask(protocol.WALK, target(b"") + U32.pack(protocol.KEEP) + pack_text(path + inside))
    reader = protocol.Reader(rows)
    assert (error, reader.number(U32), reader.number(U32)) == (0, errno.EACCES, 1)
    kept = reader.row()[0]
    assert gofer.ask(protocol.OPEN, target(inside[1:], kept) + U32.pack(0))[0] == errno.EACCES
    change = protocol.CHANGE.pack(protocol.CHANGE_MODE, 0o777, 0, 0, 0, 0, 0)
    assert gofer.ask(protocol.SETATTR, target(b"", kept) + change)[0] == errno.EACCES
    gofer.close()


def test_a_kernel_file_system_can_be_served_on_purpose() -> None:
    gofer = RawGofer(Path("/proc"))
    assert gofer.ask(protocol.OPEN, target(b"version") + U32.pack(0))[0] == 0
    gofer.close()


@given(st.binary(max_size=200))
def test_the_parsers_raise_malformed_or_nothing(data: bytes) -> None:
    for parse in (protocol.split_requests, protocol.split_replies):
        try:
            parse(data)
        except Malformed:
            pass
    reader = protocol.Reader(data)
    try:
        reader.path()
        reader.name()
        reader.fields(protocol.ATTRIBUTES)
        reader.finish()
    except Malformed:
        pass


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.binary(max_size=50)), max_size=5))
def test_requests_survive_packing(requests: list[tuple[int, int, bytes]]) -> None:
    message = b"".join(pack_request(*request) for request in requests)
    found = [(number, operation, bytes(data)) for number, operation, data in protocol.split_requests(message)]
    assert found == requests


def test_the_gofer_keeps_no_way_back(gofer: RawGofer) -> None:
    """No inherited descriptors but its socket, mounts and standard streams, and no environment."""
    gofer.ask(protocol.GETATTR, target(b""))
    pid = gofer.process.pid
    links = {os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd")[3:]}
    assert all(link == "socket" or link.endswith("/inside") for link in links)
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    assert int(effective, 16) & ~0b11111 == 0
