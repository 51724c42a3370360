"""A server as a fixture of asynchronous tests: every test gets a Redis of its own, and nothing is left of it.

The socket is the sandbox's own, so any number of these run side by side: no ports, no temporary directories, no
clean-up. Run it with ``pytest examples/test_with_redis.py`` (asyncio mode ``auto``).
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from asyncsentry import DEVNULL, Sandbox

SOCKET = "/tmp/redis.sock"


class Redis:
    """A Redis server in a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    async def __call__(self, *command: str) -> str:
        """Sends a command with redis-cli."""
        result = await self.sandbox.run(["redis-cli", "-s", SOCKET, *command], timeout=10)
        return result.stdout.decode().strip()


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with Sandbox() as sandbox:
        await sandbox.spawn(["redis-server", "--port", "0", "--unixsocket", SOCKET, "--save", ""], stdout=DEVNULL)
        client = Redis(sandbox)
        async with asyncio.timeout(20):
            while await client("ping") != "PONG":
                await asyncio.sleep(0.05)
        yield client


async def test_values_are_kept(redis: Redis) -> None:
    assert await redis("set", "greeting", "hello") == "OK"
    assert await redis("get", "greeting") == "hello"


async def test_every_test_starts_afresh(redis: Redis) -> None:
    assert await redis("dbsize") == "0"
