"""The one place that chooses, tunes and runs the event loop: uvloop, or plain asyncio where asked for.

Everything else uses the running loop through asyncio's own interface, so both work.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result], *, plain: bool = False) -> Result:
    """Runs a coroutine to its end on uvloop; ``plain`` takes asyncio's own loop instead."""
    gc.freeze()  # what was imported lives for ever: collections need not look at it
    if plain:
        return asyncio.run(main)
    import uvloop

    result: Result = uvloop.run(main)
    return result
