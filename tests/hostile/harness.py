"""What the tests with hostile guests share: building them, a bare root, and watching the sentry meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

from asyncsentry.abi.signal_h import SIGKILL
from asyncsentry.platforms import systrap
from asyncsentry.sandbox import DEVNULL, Sandbox
from asyncsentry.tasks.exit import begin_group_exit

HERE = Path(__file__).parent
SYSTRAP = Path(systrap.__file__).parent
PROGRAMS = sorted(path.stem for path in HERE.glob("*.c"))
SANDBOX_THREADS_MAX = 300
"""Host processes and threads a test may have: the host's numbers are shared by everyone."""
SANDBOX_MEMORY_BYTES = 1 << 30
STALL_LIMIT_S = 1.0
MEMORY_LIMIT_BYTES = 400 << 20
FOLDERS = ("proc", "sys/fs/cgroup", "dev/pts", "dev/shm", "tmp", "bin", "etc", "mnt", "media", "root")


def build_root(root: Path) -> Path:
    """Makes a root directory with the hostile programs, and nothing else, in ``/bin``."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/false\n")
    options = ["-O1", "-Wall", "-Wno-unused-result", "-static", "-pthread", f"-I{SYSTRAP}"]
    for name in PROGRAMS:
        subprocess.run(["gcc", *options, "-o", root / "bin" / name, HERE / f"{name}.c"], check=True)
    return root


class Watch:
    """How the event loop fares: the longest time it gave its tasks no turn, and how much memory it took."""

    def __init__(self) -> None:
        self.longest_stall_s = 0.0
        self.errors: list[str] = []

    async def run(self) -> None:
        """Ticks for ever. A stall counts the thread's own time: the machine's other work is not ours."""
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.01)
            now = time.thread_time()
            self.longest_stall_s = max(self.longest_stall_s, now - before)
            before = now

    def note_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Keeps what asyncio could only report."""
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")


def memory_bytes() -> int:
    """Gives the memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@contextlib.asynccontextmanager
async def watched(limit_bytes: int = MEMORY_LIMIT_BYTES) -> AsyncIterator[Watch]:
    """Fails if the loop stalls, an error goes astray or the sentry grows without bound inside the block."""
    loop = asyncio.get_running_loop()
    watch, before, handler = Watch(), memory_bytes(), loop.get_exception_handler()
    loop.set_exception_handler(watch.note_error)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        loop.set_exception_handler(handler)
    assert not watch.errors, watch.errors
    assert watch.longest_stall_s < STALL_LIMIT_S, f"the loop stood still for {watch.longest_stall_s:.2f} s"
    assert memory_bytes() - before < limit_bytes, f"the sentry grew by {(memory_bytes() - before) >> 20} MiB"


@contextlib.asynccontextmanager
async def hostile_sandbox(root: Path, may_ruin_files: bool = False, **options: object) -> AsyncIterator[Sandbox]:
    """A watched sandbox with few threads, which must still run a program at the end.

    A guest that is root ``may_ruin_files``: then the program may be gone.
    """
    options.setdefault("memory", SANDBOX_MEMORY_BYTES)
    async with watched(), Sandbox(str(root), **options) as sandbox:  # type: ignore[arg-type]
        sandbox.kernel.sysctls.set("kernel.threads-max", str(SANDBOX_THREADS_MAX))
        yield sandbox
        await end_all(sandbox)
        try:
            result = await sandbox.run(["/bin/hello"], timeout=20)
        except OSError:
            if not may_ruin_files:
                raise
        else:
            assert (result.exit_code, result.stdout) == (0, b"hello\n")


async def end_all(sandbox: Sandbox) -> None:
    """Kills every guest process and waits until they are gone."""
    kernel = sandbox.kernel
    async with asyncio.timeout(20):
        while any(process.threads for process in kernel.processes.values()) and not kernel.failure.done():
            for process in tuple(kernel.processes.values()):
                begin_group_exit(process, SIGKILL)
            await asyncio.sleep(0.01)


async def attack(sandbox: Sandbox, argv: list[str], user: tuple[int, int] = (0, 0), limit_s: float = 10) -> int | None:
    """Runs a hostile program for a bounded time; gives its exit code, ``None`` if it was still running."""
    process = await sandbox.spawn(argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, user=user)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await process.wait()
    code = process.exit_code
    await end_all(sandbox)
    return code


def seeds(count: int) -> list[int]:
    """Gives fresh seeds, or the one in HOSTILE_SEED to play a failure again; a test's name shows its seed."""
    fixed = os.environ.get("HOSTILE_SEED")
    return [int(fixed)] if fixed else [int.from_bytes(os.urandom(4), "little") for _ in range(count)]
