"""stress-ng with --verify: every class of stressor the kernel has a part in, without a failure.

Each runs for a second or so; ``STRESS_SECONDS=10`` is the long run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from inside import run_inside

from asyncsentry.sandbox import Sandbox

MEMORY = 2 << 30
SECONDS = os.environ.get("STRESS_SECONDS", "1")

STRESSORS = """
    cpu vm fork vfork clone pthread exec futex pipe fifo signal sigq sigfd sigsuspend sigsegv timer timerfd itimer eventfd
    epoll poll sock sockfd sockpair hdd filename file-ioctl fallocate fcntl flock lockf seek sparsematrix dir dirdeep dentry rename
    link symlink chmod chown xattr inotify access open fstat getdent utime mmap mmapfork mremap madvise mincore mprotect
    msync brk stack fault mlock shm memfd sendfile splice tee vm-splice copy-file pty sem sem-sysv shm-sysv mq msg
    switch yield nanosleep clock wait kill daemon get null zero urandom procfs sysinfo
    schedpolicy affinity prctl rlimit env itimer aio
""".split()
"""The names are stress-ng's. Debian's ``sock`` cannot use a Unix-domain socket: it asks for TCP there, and fails natively."""

OPTIONS = {
    "vm": ["--vm", "1", "--vm-bytes", "64m"],
    "hdd": ["--hdd", "1", "--hdd-bytes", "16m"],
    "mmap": ["--mmap", "1", "--mmap-bytes", "16m"],
    "mremap": ["--mremap", "1", "--mremap-bytes", "4m"],
    "fallocate": ["--fallocate", "1", "--fallocate-bytes", "16m"],
}
"""Where the plain ``--NAME 1`` is not meant, or takes more memory than a test should."""


@pytest.mark.parametrize("stressor", dict.fromkeys(STRESSORS))
async def test_stress(rootfs: Path, nothing_left_behind: None, stressor: str) -> None:
    options = OPTIONS.get(stressor, [f"--{stressor}", "1"])
    command = ["stress-ng", *options, "--verify", "--timeout", SECONDS, "--temp-path", "/tmp", "--metrics-brief"]
    async with Sandbox(root=str(rootfs), network="host", memory=MEMORY) as sandbox:
        result = await run_inside(sandbox, command, limit_s=60 + float(SECONDS))
    report = (result.stdout + result.stderr).decode(errors="replace")
    assert result.exit_code == 0, report
    assert not re.search(r"\bfail(ed|ure)?:", report), report
    assert "unsuccessful" not in report, report
