"""How each system under test runs a command over the machine's own root file system."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ASYNCSENTRY = Path(sys.executable).parent / "asyncsentry"
_TRIAL_TIMEOUT_S = 30


@dataclass(frozen=True)
class System:
    """One way to run a program."""

    name: str
    prefix: tuple[str, ...]
    """What goes before the command."""

    def command(self, argv: Sequence[str]) -> list[str]:
        """Gives the host's command line that runs ``argv`` in this system."""
        return [*self.prefix, *argv]


def _asyncsentry(platform: str) -> System:
    prefix = (str(ASYNCSENTRY), "do", "--network", "none", "--platform", platform, "--")
    return System(f"asyncsentry {platform}", prefix)


def _runsc(platform: str) -> System:
    return System(f"runsc {platform}", ("runsc", "--network=none", "--ignore-cgroups", f"--platform={platform}", "do"))


NATIVE = System("native", ())
CANDIDATES = (
    NATIVE,
    _asyncsentry("systrap"),
    _asyncsentry("ptrace"),
    System("bwrap", ("bwrap", "--unshare-all", "--dev-bind", "/", "/", "--proc", "/proc", "--")),
    _runsc("systrap"),
    _runsc("ptrace"),
)


def available(candidates: Sequence[System] = CANDIDATES) -> tuple[list[System], dict[str, str]]:
    """Tries ``/bin/true`` in each system; gives those that run it, and for the others the reason why not."""
    working, missing = [], {}
    for system in candidates:
        reason = _why_not(system)
        if reason is None:
            working.append(system)
        else:
            missing[system.name] = reason
    return working, missing


def _why_not(system: System) -> str | None:
    if system.prefix and shutil.which(system.prefix[0]) is None:
        return "not installed"
    try:
        done = subprocess.run(system.command(["/bin/true"]), stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=_TRIAL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"/bin/true did not end in {_TRIAL_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[-1][:120]
