"""``asyncsentry do``: run one command in a sandbox, as if it ran directly.

Standard streams are the caller's own. On a terminal the guest gets a terminal of the sandbox in its place, and
ours is in raw mode meanwhile: Ctrl-C, Ctrl-Z and window sizes are the guest's affair then. Otherwise signals we get are
passed on to the command's process group.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from asyncsentry import loop
from asyncsentry.boot import Volume
from asyncsentry.errnos import SentryBug
from asyncsentry.sandbox import Sandbox
from asyncsentry.syscalls.strace import Strace

if TYPE_CHECKING:
    from asyncsentry.fs.file import File
    from asyncsentry.fs.tty.host_tty import HostTty
    from asyncsentry.kernel import Kernel

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"asyncsentry: {message}; `{self.prog} --help` tells more\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the verb's arguments."""
    parser = Parser(prog="asyncsentry do", description="Run a command in a sandbox.")
    parser.add_argument("--root", default="/", metavar="DIR", help="root file system (default: /)")
    parser.add_argument("--volume", action="append", default=[], metavar="SRC:DST[:ro]",
                        help="share a host directory or file with the sandbox")
    parser.add_argument("--network", choices=("host", "none"), default="none")
    parser.add_argument("--env", action="append", default=[], metavar="K=V", help="set a variable; ours are passed on")
    parser.add_argument("--cwd", default=None, metavar="DIR", help="working directory in the sandbox")
    parser.add_argument("--user", default=None, metavar="UID[:GID]")
    parser.add_argument("--hostname", default="asyncsentry")
    parser.add_argument("--platform", choices=("systrap", "ptrace"), default="systrap")
    parser.add_argument("--overlay", choices=("memory", "none"), default="memory",
                        help="where changes to the root file system go")
    parser.add_argument("--memory", default=None, metavar="N[k|m|g]", help="memory the programs have together")
    parser.add_argument("--strace", action="store_true", help="print system calls on standard error")
    parser.add_argument("--plain-asyncio", action="store_true", help="run on asyncio's own event loop, not uvloop")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD …")
    options = parser.parse_args(arguments)
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not options.command:
        parser.error("no command given: asyncsentry do [options] -- CMD …")
    for name, convert in (("memory", _size), ("user", _user), ("volume", _volumes)):
        try:
            setattr(options, name, convert(getattr(options, name)))
        except ValueError as error:
            parser.error(f"--{name}: {error}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Runs the verb; gives the exit status."""
    options = parse(arguments)
    logging.basicConfig(format="asyncsentry: %(message)s", level=logging.ERROR)
    try:
        return loop.run(_do(options), plain=options.plain_asyncio)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        logging.getLogger("asyncsentry").debug("cause", exc_info=True)
        return _complain(f"{error}" or type(error).__name__, FAILED)


def _complain(text: str, status: int) -> int:
    print(f"asyncsentry: {text}", file=sys.stderr)
    return status


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1:].lower(), 1)
    number = text[:-1] if factor > 1 else text
    if not number.isdecimal():
        raise ValueError(f"a size is a number with k, m or g after it, not {text!r}")
    return int(number) * factor


def _user(text: str | None) -> tuple[int, int]:
    if text is None:
        return os.getuid(), os.getgid()
    uid, _, gid = text.partition(":")
    if not uid.isdecimal() or not (gid or uid).isdecimal():
        raise ValueError(f"a user is UID[:GID] in numbers, not {text!r}")
    return int(uid), int(gid or uid)


def _volumes(texts: Sequence[str]) -> list[Volume]:
    return [Volume.parse(text) for text in texts]


def _environment(settings: Sequence[str]) -> dict[str, str]:
    environment = dict(os.environ)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if equals:
            environment[name] = value
    return environment


async def _do(options: argparse.Namespace) -> int:
    sandbox = Sandbox(options.root, options.network, volumes=options.volume, hostname=options.hostname,
                      platform=options.platform, overlay=options.overlay, memory=options.memory)
    async with sandbox:
        asyncio.get_running_loop().set_exception_handler(partial(_fail, sandbox.kernel))
        if options.strace:
            sandbox.kernel.dispatch.instruments.append(Strace(sys.stderr))
        return await _run(sandbox, options)


def _fail(kernel: Kernel, running: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Stops the sandbox when a callback of its own (a timer, a reader) meets something nobody foresaw."""
    kernel.fail(context.get("exception") or SentryBug(context["message"]))


async def _run(sandbox: Sandbox, options: argparse.Namespace) -> int:
    cwd = options.cwd or ("/" if options.root != "/" else os.getcwd())
    console = sandbox.host_terminal(0) if os.isatty(0) else None
    stdin, stdout, stderr = (_stream(console, fd) for fd in range(3))
    try:
        process = await sandbox.spawn(options.command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd,
                                      user=options.user, env=_environment(options.env),
                                      terminal=console.pty if console else None)
    except NotADirectoryError as error:
        return _complain(f"the working directory {error.filename} is not there in the sandbox", FAILED)
    except FileNotFoundError:
        return _complain(f"{options.command[0]}: not found in the sandbox", NOT_FOUND)
    except OSError as error:
        return _complain(f"{options.command[0]}: cannot be run: {(error.strerror or '').lower()}", NOT_EXECUTABLE)
    running = asyncio.get_running_loop()
    for signo in FORWARDED:
        running.add_signal_handler(signo, process.signal_group, signo)
    try:
        if console is not None:
            console.start()
        await process.wait()
    finally:
        if console is not None:
            await console.close()
        for signo in FORWARDED:
            running.remove_signal_handler(signo)
    return process.exit_code or 0


def _stream(console: HostTty | None, fd: int) -> File | None:
    """Gives the sandbox's terminal for a standard stream that is our terminal; others are handed on as they are."""
    if console is None or not os.isatty(fd) or os.ttyname(fd) != os.ttyname(0):
        return None
    return console.open()
