"""The kernel's log as dmesg(1) shows it: what this kernel has to say for itself at boot.

The lines are made up, once per sandbox, with times that pass for a boot. A leaf: imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable

_FIRST = "Linux version {release} (asyncsentry@localhost) (CPython, no C compiler was harmed) {version}"
_STEPS = (
    "Checking that this is not a simulation... inconclusive",
    "Teaching pythons to slither in constant time",
    "Counting to infinity twice, the second time for the cache",
    "Mounting a root file system; it says it is afraid of heights",
    "Awaiting coroutines that are awaiting us",
    "Persuading every await to keep its promise",
    "Asking the garbage collector to come back on Tuesday",
    "Polishing all 512 fingers of every signal handler",
    "Locating spare interpreter lock... found one under the sofa",
    "Giving the halting problem five more minutes",
    "Bribing the scheduler with fresh nanoseconds",
    "Reading the manual (skipped, as is tradition)",
    "Untangling pipes. Mario was unavailable",
    "Negotiating with the gofer, who wants weekends off",
    "Hiding the host where no guest will look",
    "Renaming every bug to a feature, in alphabetical order",
)
_LAST = "Ready!"
_SHOWN = 12


class BootLog:
    """The lines of one sandbox's log, and how far SYSLOG_ACTION_CLEAR has hidden them."""

    def __init__(self, release: str, version: str, below: Callable[[int], int]) -> None:
        """``below(n)`` gives a random integer in ``range(n)``."""
        steps = list(_STEPS)
        lines = [_FIRST.format(release=release, version=version)]
        while len(lines) < _SHOWN:
            lines.append(steps.pop(below(len(steps))))
        self.lines: list[str] = []
        time_us = 0
        for text in [*lines, _LAST]:
            self.lines.append(f"<6>[{time_us // 1_000_000:5d}.{time_us % 1_000_000:06d}] {text}\n")
            time_us += 100_000 + below(400_000)
        self.cleared = 0
        self.unread = 0
        """Where SYSLOG_ACTION_READ goes on."""

    def append(self, text: str, time_us: int) -> None:
        """Adds a line; ``time_us`` is the time since boot."""
        self.lines.append(f"<3>[{time_us // 1_000_000:5d}.{time_us % 1_000_000:06d}] {text}\n")

    def text(self) -> bytes:
        """Gives everything that was not cleared."""
        return "".join(self.lines[self.cleared :]).encode()

    def take_unread(self, count: int) -> bytes:
        """Gives whole lines, up to ``count`` bytes, that nobody has taken yet."""
        taken = b""
        while self.unread < len(self.lines) and len(taken) + len(self.lines[self.unread]) <= count:
            taken += self.lines[self.unread].encode()
            self.unread += 1
        return taken

    def unread_size(self) -> int:
        """Gives how many bytes nobody has taken yet."""
        return sum(len(line) for line in self.lines[self.unread :])

    def size(self) -> int:
        """Gives the size of the whole log."""
        return sum(len(line) for line in self.lines)
