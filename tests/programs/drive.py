"""Runs one program in a sandbox of its own process, so that several can run at once.

``python drive.py LIMIT_S NETWORK PROGRAM…``: standard output is the program's. If it takes longer than LIMIT_S, where its
threads stand goes to standard error, and the exit status is 124.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

from guestdump import describe
from rootfs import ROOTFS

from asyncsentry import loop
from asyncsentry.sandbox import Sandbox

TIMED_OUT = 124


async def main(limit_s: float, network: str, argv: list[str]) -> int:
    """Runs the program and gives its exit status."""
    async with Sandbox(root=str(ROOTFS), network=network) as sandbox:
        process = await sandbox.spawn(argv, stdin=subprocess.DEVNULL)
        try:
            async with asyncio.timeout(limit_s):
                await process.wait()
        except TimeoutError:
            print(f"still running after {limit_s} s; {describe(sandbox.kernel)}", file=sys.stderr)
            return TIMED_OUT
        return process.exit_code or 0


if __name__ == "__main__":
    sys.exit(loop.run(main(float(sys.argv[1]), sys.argv[2], sys.argv[3:])))
