"""Runs programs in a sandbox over this machine's root file system. What they change stays inside."""

import asyncio
import os

from asyncsentry import PIPE, Sandbox


async def main() -> None:
    async with Sandbox() as sandbox:
        result = await sandbox.run(["sh", "-c", "uname -sr; echo trouble >&2; exit 3"])
        print(result)

        await sandbox.run(["rm", "-rf", "/usr/share/doc"])
        inside = await sandbox.run(["ls", "/usr/share/doc"])
        print("gone inside:", inside.exit_code != 0, "- still there outside:", os.path.exists("/usr/share/doc"))

        process = await sandbox.spawn(["tr", "a-z", "A-Z"], stdin=PIPE, stdout=PIPE)
        shouted, _ = await process.communicate(b"whisper\n")
        print(shouted, process.returncode)


asyncio.run(main())
