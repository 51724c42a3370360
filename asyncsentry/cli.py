"""The command line: one module per verb, imported only when it is asked for.

Errors of ours are one line on standard error; exit statuses are a shell's (125: the sandbox itself failed).
"""

from __future__ import annotations

import sys

VERBS = {
    "do": ("asyncsentry.control.do", "run a command in a sandbox over a root file system"),
    "syscalls": ("asyncsentry.control.syscalls", "list the system calls and how well each is supported"),
}
"""Verb: the module whose ``main(arguments)`` does it, and what it is for."""


def usage() -> str:
    """Gives the help text."""
    lines = ["usage: asyncsentry [--version] [--help] VERB …", "", "verbs:"]
    lines += [f"  {verb:<10} {purpose}" for verb, (_, purpose) in VERBS.items()]
    lines += ["", "`asyncsentry VERB --help` tells more."]
    return "\n".join(lines)


def main() -> int:
    """Runs the verb named first on the command line."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from asyncsentry import __version__

        print(f"asyncsentry version {__version__}")
        return 0
    if arguments[0] not in VERBS:
        print(f"asyncsentry: no verb {arguments[0]!r}; `asyncsentry --help` lists them", file=sys.stderr)
        return 2
    import importlib

    module = importlib.import_module(VERBS[arguments[0]][0])
    status: int = module.main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
