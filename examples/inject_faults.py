"""Lets the disk be full at a moment of our choosing, and looks at what a program makes of it."""

import asyncio

from asyncsentry import Sandbox
from asyncsentry.errnos import ENOSPC
from asyncsentry.syscalls.registry import Row
from asyncsentry.tasks.thread import Thread


class FullDisk:
    """From the ``after``-th write to a regular file on, there is no space left."""

    def __init__(self, after: int) -> None:
        self.left = after

    def enter(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...]) -> int | None:
        if row is None or row.name not in ("write", "pwrite64", "writev"):
            return None
        file = thread.fds.files.get(arguments[0])
        if file is None or not file.seekable:
            return None
        self.left -= 1
        return -ENOSPC.errno if self.left < 0 else None

    def leave(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...],
              result: int | None) -> int | None:
        return result


async def main() -> None:
    async with Sandbox() as sandbox:
        sandbox.kernel.dispatch.instruments.append(FullDisk(after=3))
        result = await sandbox.run(["dd", "if=/dev/zero", "of=/tmp/file", "bs=4096", "count=10"])
        print(result.stderr.decode().splitlines()[0], "- exit code", result.exit_code)
        print((await sandbox.run(["stat", "-c", "%s bytes were written", "/tmp/file"])).stdout.decode().strip())


asyncio.run(main())
