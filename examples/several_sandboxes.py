"""Eight sandboxes in one Python process and one event loop: eight kernels that know nothing of each other."""

import asyncio

from asyncsentry import Sandbox


async def visit(number: int) -> str:
    async with Sandbox(hostname=f"host-{number}") as sandbox:
        await sandbox.run(["sh", "-c", f"echo {number} >/etc/number"])
        result = await sandbox.run(["sh", "-c", "echo $(hostname): $(cat /etc/number)"])
        return result.stdout.decode().strip()


async def main() -> None:
    print(*await asyncio.gather(*map(visit, range(8))), sep="\n")


asyncio.run(main())
