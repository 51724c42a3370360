"""Watches a sandbox's system calls with an instrument: counts them by name, and hides one file."""

import asyncio
from collections import Counter

from asyncsentry import Sandbox
from asyncsentry.errnos import ENOENT
from asyncsentry.syscalls.registry import Row
from asyncsentry.tasks.thread import Thread


class Watch:
    """An instrument: ``enter`` runs before a call and may answer it, ``leave`` after it and may change the answer."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def enter(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...]) -> int | None:
        name = row.name if row else str(number)
        self.calls[name] += 1
        if name == "openat" and thread.memory.read_path(arguments[1]) == "/etc/shadow":
            return -ENOENT.errno
        return None

    def leave(self, thread: Thread, row: Row | None, number: int, arguments: tuple[int, ...],
              result: int | None) -> int | None:
        return result


async def main() -> None:
    watch = Watch()
    async with Sandbox() as sandbox:
        sandbox.kernel.dispatch.instruments.append(watch)
        result = await sandbox.run(["cat", "/etc/shadow"])
        print(result.stderr.decode().strip())
    print("calls made most:", *(f"{name} ({count})" for name, count in watch.calls.most_common(3)))


asyncio.run(main())
