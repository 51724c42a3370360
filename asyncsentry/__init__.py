"""asyncsentry: an application kernel for containers, written in Python on asyncio.

>>> async with asyncsentry.Sandbox(root="/", network="none") as sandbox:
...     result = await sandbox.run(["sh", "-c", "echo hi; exit 3"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncsentry.boot import Volume
    from asyncsentry.sandbox import DEVNULL, PIPE, STDOUT, Process, Result, Sandbox, SandboxError

__all__ = ["DEVNULL", "PIPE", "STDOUT", "Process", "Result", "Sandbox", "SandboxError", "Volume"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports the library when it is first used: command-line verbs that need little start faster without."""
    if name == "Volume":
        from asyncsentry.boot import Volume

        return Volume
    if name in __all__:
        from asyncsentry import sandbox

        return getattr(sandbox, name)
    raise AttributeError(f"module 'asyncsentry' has no attribute {name!r}")
