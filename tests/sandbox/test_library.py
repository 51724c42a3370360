"""The library as its users see it: programs, streams, several sandboxes, and what is left afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

import asyncsentry
from asyncsentry import PIPE, Sandbox, SandboxError


@pytest.fixture
async def sandbox(nothing_left_behind: None) -> AsyncIterator[Sandbox]:
    async with Sandbox() as made:
        yield made


async def test_a_program_leaves_its_output_and_exit_code(sandbox: Sandbox) -> None:
    result = await sandbox.run(["sh", "-c", "echo hi; echo oops >&2; exit 3"])
    assert result == asyncsentry.Result(3, b"hi\n", b"oops\n")


async def test_a_signal_shows_as_a_shell_says_it(sandbox: Sandbox) -> None:
    result = await sandbox.run(["sh", "-c", "kill -TERM $$"])
    assert result.exit_code == 128 + signal.SIGTERM


async def test_input_reaches_the_program(sandbox: Sandbox) -> None:
    text = b"line\n" * 50_000
    result = await sandbox.run(["cat"], input=text)
    assert result.stdout == text


async def test_a_spawned_program_talks_over_pipes(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(["cat"], stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"ping\n")
    await process.stdin.drain()
    assert await process.stdout.readline() == b"ping\n"
    assert process.returncode is None
    process.stdin.close()
    assert await process.wait() == 0


async def test_signals_and_their_return_codes(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(["sleep", "100"])
    process.terminate()
    assert await process.wait() == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        process.kill()


async def test_a_timeout_leaves_no_reader_though_somebody_holds_the_output(sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutError):
        await sandbox.run(["sh", "-c", "sleep 100 & exec sleep 100"], timeout=0.2)
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if "_read_all" in repr(task.get_coro())]


async def test_a_timeout_ends_the_program(sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutError):
        await sandbox.run(["sleep", "100"], timeout=0.2)


async def test_a_program_that_is_not_there(sandbox: Sandbox) -> None:
    with pytest.raises(FileNotFoundError):
        await sandbox.spawn(["no-such-program"])
    with pytest.raises(PermissionError):
        await sandbox.spawn(["/etc"])


async def test_environment_working_directory_and_user(sandbox: Sandbox) -> None:
    result = await sandbox.run(["sh", "-c", "echo $A; pwd; id -u; id -g"], env={"A": "1", "PATH": "/bin:/usr/bin"},
                               cwd="/usr", user=(12, 34))
    assert result.stdout == b"1\n/usr\n12\n34\n"


async def test_changes_stay_inside(sandbox: Sandbox) -> None:
    name = f"/etc/asyncsentry-test-{os.getpid()}"
    result = await sandbox.run(["sh", "-c", f"echo x > {name} && cat {name} && rm -rf /etc && ls /etc"])
    assert result.stdout == b"x\n"
    assert result.exit_code == 2
    assert not os.path.exists(name)
    assert os.path.exists("/etc/passwd")


async def test_sandboxes_know_nothing_of_each_other(nothing_left_behind: None) -> None:
    async with Sandbox(hostname="one") as one, Sandbox(hostname="two") as two:
        first, second = await asyncio.gather(
            one.run(["sh", "-c", "touch /mine; hostname; ls /mine"]), two.run(["sh", "-c", "hostname; ls /mine"]))
    assert first.stdout == b"one\n/mine\n"
    assert second.stdout == b"two\n"
    assert second.exit_code == 2


async def test_leaving_ends_whatever_still_runs(nothing_left_behind: None) -> None:
    async with Sandbox() as sandbox:
        await sandbox.spawn(["sh", "-c", "sleep 100 & sleep 100 | cat & while :; do :; done"])
        await sandbox.run(["true"])


async def test_a_volume_is_shared_with_the_host(nothing_left_behind: None, tmp_path: object) -> None:
    folder = str(tmp_path)
    async with Sandbox(volumes=[f"{folder}:/mnt", asyncsentry.Volume("/usr", "/media", read_only=True)]) as sandbox:
        result = await sandbox.run(["sh", "-c", "echo shared > /mnt/file; touch /media/x"])
    assert result.exit_code == 1
    assert b"Read-only file system" in result.stderr
    with open(f"{folder}/file") as file:
        assert file.read() == "shared\n"


class Broken:
    """An instrument that fails as a bug of ours would."""

    def enter(self, thread: object, row: object, number: int, arguments: tuple[int, ...]) -> int | None:
        if number == 39:
            raise ZeroDivisionError("a bug")
        return None

    def leave(self, thread: object, row: object, number: int, arguments: tuple[int, ...], result: int | None
              ) -> int | None:
        return result


async def test_a_bug_stops_the_sandbox_and_says_where(nothing_left_behind: None, caplog: pytest.LogCaptureFixture
                                                      ) -> None:
    with pytest.raises(SandboxError, match=r"ZeroDivisionError in getpid\(.*\) of thread \d+: a bug"):
        async with Sandbox() as sandbox:
            sandbox.kernel.dispatch.instruments.append(Broken())
            await sandbox.run(["python3", "-c", "import os; os.getpid()"])
    assert "a guest thread met a bug" in caplog.text


def test_it_runs_on_plain_asyncio_and_on_uvloop() -> None:
    program = (
        "import asyncio, asyncsentry, asyncsentry.loop, sys\n"
        "async def main():\n"
        "    async with asyncsentry.Sandbox() as sandbox:\n"
        "        print((await sandbox.run(['echo', type(asyncio.get_running_loop()).__module__])).stdout)\n"
        "asyncsentry.loop.run(main(), plain=sys.argv[1] == 'plain')\n"
    )
    for kind, module in (("plain", b"asyncio"), ("uvloop", b"uvloop")):
        done = subprocess.run([sys.executable, "-c", program, kind], capture_output=True, timeout=60, check=True)
        assert module in done.stdout


@pytest.mark.slow
async def test_a_parked_sandbox_costs_no_processor_time(sandbox: Sandbox) -> None:
    await sandbox.spawn(["sh", "-c", "sleep 100 | cat"])
    threads = sandbox.kernel.threads
    async with asyncio.timeout(20):
        while len(threads) < 3 or not all(thread.is_blocked for thread in threads.values()):
            await asyncio.sleep(0.01)
    before = time.process_time()
    await asyncio.sleep(1)  # what is measured is time itself
    assert time.process_time() - before < 0.02
