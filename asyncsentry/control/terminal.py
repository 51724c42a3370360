"""The caller's terminal as the sandbox's: what ``asyncsentry do`` does when standard input is a terminal."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from asyncsentry.fs.tty.host_tty import HostTty

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.fs.tty.tty import Tty
    from asyncsentry.sandbox import Sandbox


def attach_terminal(sandbox: Sandbox, stack: ExitStack) -> dict[str, File | Tty | None]:
    """Joins our terminal to one of the sandbox until ``stack`` is closed; gives ``spawn``'s stream arguments.

    Output streams of ours that are no terminals stay what they are.
    """
    kernel = sandbox.kernel
    devpts = kernel.terminals.instances[0]
    mount = next((mount for mount in kernel.mounts if mount.filesystem is devpts), None)
    output = next((fd for fd in (1, 2) if os.isatty(fd)), 0)
    joined = HostTty(devpts, mount, 0, output, os.getuid(), os.getgid())
    joined.start()
    stack.callback(joined.close_blocking)
    kernel.terminals.console = joined.pty
    streams: dict[str, File | Tty | None] = {"stdin": joined.open(), "terminal": joined.pty}
    for name, fd in (("stdout", 1), ("stderr", 2)):
        streams[name] = streams["stdin"] if os.isatty(fd) else None
    return streams
