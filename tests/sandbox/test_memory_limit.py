"""A sandbox with a memory limit: what does not fit is refused, and who touches too much all the same is ended."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from asyncsentry import Sandbox

LIMIT = 128 << 20

pytestmark = pytest.mark.slow

TOUCH = """
import mmap, os
def touch(size, kind):
    area = mmap.mmap(-1, size, flags=kind | mmap.MAP_ANONYMOUS | 0x4000)
    for offset in range(0, size, 4096):
        area[offset] = 1
    return area
"""


@pytest_asyncio.fixture
async def sandbox(nothing_left_behind: None) -> AsyncIterator[Sandbox]:
    async with Sandbox(memory=LIMIT) as sandbox:
        yield sandbox


async def python(sandbox: Sandbox, source: str) -> tuple[int, bytes, bytes]:
    result = await sandbox.run(["python3", "-c", TOUCH + source], timeout=30)
    return result.exit_code, result.stdout, result.stderr


async def test_what_does_not_fit_is_refused(sandbox: Sandbox) -> None:
    status, _, errors = await python(sandbox, "bytearray(200 << 20)")
    assert status == 1
    assert b"MemoryError" in errors
    status, _, errors = await python(sandbox, "mmap.mmap(-1, 200 << 20)")
    assert (status, b"Cannot allocate memory" in errors) == (1, True)


async def test_reserved_memory_counts_only_once_it_is_touched(sandbox: Sandbox) -> None:
    assert await python(sandbox, "mmap.mmap(-1, 1 << 40, flags=2 | 0x20 | 0x4000); touch(20 << 20, 2)") == (0, b"", b"")


async def test_who_touches_more_than_there_is_gets_killed_and_the_others_live_on(sandbox: Sandbox) -> None:
    other = await sandbox.spawn(["sleep", "60"])
    status, _, _ = await python(sandbox, "touch(1 << 30, mmap.MAP_PRIVATE)")
    assert status == 128 + 9
    assert other.returncode is None
    log = (await sandbox.run(["dmesg"])).stdout
    assert b"Out of memory: Killed process" in log
    assert b"(python3)" in log
    other.kill()
    await other.wait()


async def test_programs_are_told_what_is_left(sandbox: Sandbox) -> None:
    source = """
import time
def left():
    lines = dict(line.split(":") for line in open("/proc/meminfo"))
    return [int(lines[name].split()[0]) >> 10 for name in ("MemTotal", "MemAvailable")]
before = left()
area = touch(60 << 20, mmap.MAP_PRIVATE)
while left()[1] > before[1] - 50:
    time.sleep(0.01)
print(before[0], before[1] > 90, int(open("/sys/fs/cgroup/memory.current").read()) >> 20 >= 60)
"""
    assert await python(sandbox, source) == (0, b"128 True True\n", b"")


async def test_pages_shared_since_a_fork_count_once(sandbox: Sandbox) -> None:
    source = """
area = touch(50 << 20, mmap.MAP_PRIVATE)
import time
children = []
for _ in range(4):
    children.append(os.fork())
    if not children[-1]:
        time.sleep(0.3)
        os._exit(0)
print([os.waitpid(child, 0)[1] for child in children])
"""
    assert await python(sandbox, source) == (0, b"[0, 0, 0, 0]\n", b"")


async def test_files_in_memory_fill_up(sandbox: Sandbox) -> None:
    source = """
for path in ("/dev/shm/large", "/large"):
    with open(path, "wb") as file:
        try:
            for _ in range(200):
                file.write(bytes(1 << 20))
                file.flush()
        except OSError as error:
            print(error.strerror)
    os.unlink(path)
"""
    assert await python(sandbox, source) == (0, b"No space left on device\n" * 2, b"")


async def test_oom_score_adj_chooses_the_victim(sandbox: Sandbox) -> None:
    source = """
child = os.fork()
if not child:
    open("/proc/self/oom_score_adj", "w").write("1000")
    import time
    area = touch(30 << 20, mmap.MAP_PRIVATE)
    time.sleep(10)
    os._exit(0)
area = touch(50 << 20, mmap.MAP_PRIVATE)
more = touch(50 << 20, mmap.MAP_PRIVATE)
print(os.waitpid(child, 0)[1])
"""
    assert await python(sandbox, source) == (0, b"9\n", b"")
    assert b"oom_score_adj:1000" in (await sandbox.run(["dmesg"])).stdout


@pytest.fixture
def low_descriptor_limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_sandbox_may_use_all_descriptors_its_process_may(low_descriptor_limit: None) -> None:
    source = "import os\nprint(len([open('/etc/passwd') for _ in range(500)]))"
    async with Sandbox() as sandbox:
        result = await sandbox.run(["python3", "-c", source])
    assert result.stdout == b"500\n"
