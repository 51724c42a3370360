"""Kernel parameters: what they start as, what may be written."""

from __future__ import annotations

import pytest

from asyncsentry.errnos import EINVAL, ENOENT, EPERM
from asyncsentry.sysctl import TABLE, Sysctls


def test_every_default_is_within_its_own_limits() -> None:
    for name, entry in TABLE.items():
        if entry.fields and entry.mode & 0o200 and name != "net.ipv4.ping_group_range":
            assert all(entry.low <= int(word) <= entry.high for word in entry.default.split()), name


def test_a_change_shows_and_is_used() -> None:
    sysctls = Sysctls()
    sysctls.set("kernel.pid_max", " 1000\n")
    assert sysctls.get("kernel.pid_max") == "1000"
    assert sysctls.integer("kernel.pid_max") == 1000
    assert Sysctls().integer("kernel.pid_max") == 4194304


def test_a_short_line_changes_the_first_fields() -> None:
    sysctls = Sysctls()
    sysctls.set("net.ipv4.tcp_rmem", "8192")
    assert sysctls.get("net.ipv4.tcp_rmem") == "8192\t131072\t6291456"
    assert sysctls.integer("net.ipv4.tcp_rmem", 2) == 6291456


def test_text_is_kept_as_it_is() -> None:
    sysctls = Sysctls()
    sysctls.set("kernel.core_pattern", "|/bin/save %p\n")
    assert sysctls.get("kernel.core_pattern") == "|/bin/save %p"


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("kernel.pid_max", "many", EINVAL),
        ("kernel.pid_max", "1", EINVAL),
        ("kernel.pid_max", "1000 2000", EINVAL),
        ("kernel.pid_max", "", EINVAL),
        ("kernel.cap_last_cap", "3", EPERM),
        ("kernel.nothing", "3", ENOENT),
    ],
)
def test_nonsense_is_refused(name: str, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Sysctls().set(name, text)
