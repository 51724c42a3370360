"""Inherited host descriptors: never blocking, never made non-blocking."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from asyncsentry.errnos import EMFILE, EPIPE, ESPIPE, WouldBlock
from asyncsentry.fs.hoststream import HostStreamFile
from asyncsentry.waiter import POLLHUP, READABLE, WRITABLE, Waiter

Scenario = Callable[..., Coroutine[Any, Any, None]]


def on_both_loops(scenario: Scenario) -> Callable[[bool], None]:
    """Runs a coroutine test on asyncio's own loop and on uvloop."""

    @pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def test(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(scenario())

    return test


class Pipe:
    def __init__(self) -> None:
        read_end, write_end = os.pipe()
        self.reader = HostStreamFile(read_end, owned=True)
        self.writer = HostStreamFile(write_end, owned=True)
        self.writer_is_open = True

    async def close_writer(self) -> None:
        if self.writer_is_open:
            self.writer_is_open = False
            await self.writer.release()


def with_pipe(scenario: Scenario) -> Callable[[bool], None]:
    """Gives the scenario a pipe, on both loops."""

    async def run() -> None:
        pipe = Pipe()
        try:
            await scenario(pipe)
        finally:
            await pipe.reader.release()
            await pipe.close_writer()

    return on_both_loops(run)


async def wait_for(file: HostStreamFile, mask: int) -> int:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiter = Waiter(lambda bits: None if future.done() else future.set_result(bits), mask | POLLHUP)
    file.queue.add(waiter)
    try:
        return await asyncio.wait_for(future, 5)
    finally:
        file.queue.remove(waiter)


@with_pipe
async def test_a_pipe_is_read_when_something_comes(pipe: Pipe) -> None:
    with pytest.raises(WouldBlock):
        pipe.reader.try_read(10)
    waiting = asyncio.ensure_future(wait_for(pipe.reader, READABLE))
    await asyncio.sleep(0)
    assert pipe.writer.try_write(b"hello") == 5
    assert await waiting & READABLE
    assert pipe.reader.try_read(10) == b"hello"
    assert not pipe.reader.poll() & READABLE


@with_pipe
async def test_the_shared_description_stays_blocking(pipe: Pipe) -> None:
    waiting = asyncio.ensure_future(wait_for(pipe.reader, READABLE))
    await asyncio.sleep(0)
    assert not fcntl.fcntl(pipe.reader.descriptor, fcntl.F_GETFL) & os.O_NONBLOCK
    pipe.writer.try_write(b"x")
    await waiting


@with_pipe
async def test_a_full_pipe_makes_the_writer_wait(pipe: Pipe) -> None:
    assert pipe.writer.try_write(b"x" * (1 << 20)) == 65536
    with pytest.raises(WouldBlock):
        pipe.writer.try_write(b"x")
    waiting = asyncio.ensure_future(wait_for(pipe.writer, WRITABLE))
    await asyncio.sleep(0)
    while pipe.reader.poll() & READABLE:
        pipe.reader.try_read(1 << 20)
    assert await waiting & WRITABLE


@with_pipe
async def test_the_end_of_a_pipe_is_seen(pipe: Pipe) -> None:
    waiting = asyncio.ensure_future(wait_for(pipe.reader, READABLE))
    await asyncio.sleep(0)
    await pipe.close_writer()
    assert await waiting & POLLHUP
    assert pipe.reader.try_read(10) == b""


@on_both_loops
async def test_a_broken_pipe_is_an_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    writer = HostStreamFile(write_end, owned=True)
    with pytest.raises(EPIPE):
        writer.try_write(b"x")
    await writer.release()


@with_pipe
async def test_without_nowait_support_poll_is_asked_first(pipe: Pipe) -> None:
    pipe.reader._no_wait = pipe.writer._no_wait = False
    with pytest.raises(WouldBlock):
        pipe.reader.try_read(10)
    assert pipe.writer.try_write(b"x" * 10000) == 4096
    assert len(pipe.reader.try_read(10000)) == 4096


@on_both_loops
async def test_sockets_work_too() -> None:
    ours, theirs = socket.socketpair()
    file = HostStreamFile(ours.detach(), owned=True)
    with pytest.raises(WouldBlock):
        file.try_read(10)
    theirs.send(b"hi")
    assert file.try_read(10) == b"hi"
    assert file.describe().startswith("socket:[")
    theirs.close()
    await file.release()


@on_both_loops
async def test_a_regular_file_shares_its_position_with_the_host() -> None:
    descriptor = os.open("/tmp", os.O_RDWR | os.O_TMPFILE)
    file = HostStreamFile(descriptor, owned=True)
    assert file.try_write(b"hello") == 5
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 5
    assert file.seek(0, 0) == 0
    assert file.try_read(10) == b"hello"
    assert file.poll() == READABLE | WRITABLE
    await file.release()


@with_pipe
async def test_reopening_one_without_a_descriptor_left_is_an_error_of_that_call(pipe: Pipe) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    inode = pipe.reader.inode
    assert inode is not None
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(EMFILE):
            await inode.open(os.O_RDONLY, None, None)  # type: ignore[arg-type]
        with pytest.raises(WouldBlock):
            pipe.reader.try_read(1)
        pipe.reader.queue.add(Waiter(print, READABLE))  # a wait cannot fail any more
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@on_both_loops
async def test_dev_null_is_always_ready() -> None:
    file = HostStreamFile(os.open("/dev/null", os.O_RDWR), owned=True)
    assert file.try_read(10) == b""
    assert file.try_write(b"x") == 1
    assert await asyncio.wait_for(wait_for(file, READABLE | WRITABLE), 5)
    with pytest.raises(ESPIPE):
        file.seek(0, 0)
    await file.release()
