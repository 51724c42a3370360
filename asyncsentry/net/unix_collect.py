"""Files in flight in SCM_RIGHTS messages, and the garbage they can become.

A socket whose only references come from messages that can only be received through such sockets will
never be received. Each close of an AF_UNIX socket looks for such cycles, as net/unix/garbage.c does: start
from the sockets somebody outside still refers to, mark all that can be received through them, throw away
the messages of the rest.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncsentry.fs.fdtable import drop
from asyncsentry.net import unix as unix_module

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.kernel import Kernel
    from asyncsentry.net.ancillary import Ancillary
    from asyncsentry.net.unix import UnixSocket
    from asyncsentry.net.unix_names import UnixNamespace


_COLLECT_MIN = 64


def take_off(namespace: UnixNamespace, files: list[File]) -> None:
    """Notes that files are in flight."""
    namespace.in_flight.update(files)


def land(namespace: UnixNamespace, files: list[File]) -> list[File]:
    """Notes that files are no longer in flight; gives them."""
    in_flight = namespace.in_flight
    for file in files:
        in_flight[file] -= 1
        if not in_flight[file]:
            del in_flight[file]
    return files


async def discard(namespace: UnixNamespace, files: list[File]) -> None:
    """Drops files nobody will receive.

    Dropping a socket discards what it has received in turn, and guests nest such sockets as deep as they like: so the
    innermost calls only add to what the outermost drops.
    """
    namespace.discarded += land(namespace, files)
    if namespace.is_discarding:
        return
    namespace.is_discarding = True
    try:
        while namespace.discarded:
            await drop(namespace.discarded.pop())
    finally:
        namespace.is_discarding = False


async def collect_if_many(namespace: UnixNamespace) -> None:
    """Looks for garbage when much is in flight: a program may make it without ever closing a socket for good."""
    if len(namespace.in_flight) >= namespace.collect_at:
        await collect(namespace)
        namespace.collect_at = max(_COLLECT_MIN, 2 * len(namespace.in_flight))


async def collect(namespace: UnixNamespace) -> None:
    """Throws away messages that nobody can ever receive."""
    if namespace.is_collecting or not namespace.in_flight:
        return
    namespace.is_collecting = True
    try:
        for socket in _unreachable(namespace):
            await socket.discard_received()
    finally:
        namespace.is_collecting = False


def _unreachable(namespace: UnixNamespace) -> list[UnixSocket]:
    candidates = {file for file, count in namespace.in_flight.items()
                  if isinstance(file, unix_module.UnixSocket) and file.references == count}  # fmt: skip
    if not candidates:
        return []
    pending = [socket for socket in namespace.sockets if socket not in candidates and not _is_embryo(socket)]
    reached = set(pending)
    while pending:
        for socket in _receivable(pending.pop()):
            if socket not in reached:
                reached.add(socket)
                pending.append(socket)
    return [socket for socket in candidates if socket not in reached]


def _is_embryo(socket: UnixSocket) -> bool:
    """Whether it waits in a listener's queue, so that only the listener leads to it."""
    return socket.references == 0


def _receivable(socket: UnixSocket) -> list[UnixSocket]:
    """Gives the sockets one can get hold of through a socket."""
    found = [file for message in socket.received for file in message.files if isinstance(file, unix_module.UnixSocket)]
    return found + socket.embryos()


def drop_soon(kernel: Kernel, ancillary: Ancillary) -> None:
    """Closes files from code that cannot wait (read(2) of a message that brought some)."""
    task = asyncio.get_running_loop().create_task(ancillary.release())
    kernel.unix.releases.add(task)
    task.add_done_callback(kernel.unix.release_done)
