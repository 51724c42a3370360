"""The root file system the tests' programs live in, and how one of them runs natively: the oracle.

A native run is a chroot into a throw-away overlay of the same root, in mount and process namespaces of its own, so it
starts from what a sandbox starts from and leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncsentry.sandbox import DEFAULT_ENVIRONMENT, Result

CACHE = Path(__file__).parents[2] / ".cache"
ROOTFS = CACHE / "rootfs"

ENTER = """
set -e
scratch=$1 rootfs=$2 cwd=$3; shift 3
mount -t tmpfs scratch "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay root -o "lowerdir=$rootfs,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
mount -t proc proc "$scratch/root/proc"
mount --rbind /sys "$scratch/root/sys"
mount --rbind /dev "$scratch/root/dev"
mount -t tmpfs -o mode=1777 shm "$scratch/root/dev/shm"
set +e
setpriv --bounding-set -sys_time,-sys_boot,-sys_module chroot "$scratch/root" /usr/bin/env -C "$cwd" "$@"
exit $?
"""
"""Run in new namespaces; the shell stays as process 1, since that one would be deaf to signals. What programs could do
to the whole machine is taken from them: CPython's tests set the clock if they may."""


def why_missing() -> str | None:
    """Says why there is no root file system to run programs in, or ``None`` if there is one."""
    if os.getuid() != 0:
        return "running programs natively in the tests' root file system takes root (chroot)"
    if (CACHE / "rootfs.made").exists():
        return None
    reason = CACHE / "rootfs.missing"
    return reason.read_text().strip() if reason.exists() else "no root file system: run scripts/bootstrap-tests once"


def fingerprint() -> str:
    """Names what the root file system was made from, for caches of native results."""
    return hashlib.sha256((CACHE / "rootfs.made").read_bytes()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Native:
    """Runs programs of the root file system on the host's kernel."""

    scratch: Path

    def command(self, argv: Sequence[str], cwd: str = "/") -> list[str]:
        """The host command that runs ``argv``."""
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh", str(self.scratch),
                str(ROOTFS), cwd, *argv]  # fmt: skip

    def run(self, argv: Sequence[str], *, input: bytes = b"", cwd: str = "/", timeout: float = 60) -> Result:
        """Runs a program to its end; the result has the shape of a sandbox's."""
        done = subprocess.run(self.command(argv, cwd), input=input, capture_output=True, timeout=timeout, check=False,
                              env=DEFAULT_ENVIRONMENT)  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)
