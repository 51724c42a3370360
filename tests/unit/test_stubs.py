"""Every system call Linux has is either answered or listed with a reason."""

from __future__ import annotations

from asyncsentry import syscalls
from asyncsentry.syscalls.registry import ROWS, Support
from asyncsentry.syscalls.stubs import STUBS

NUMBERS = [*range(335), *range(424, 470)]


def test_every_number_is_known_once() -> None:
    syscalls.load()
    assert [number for number in NUMBERS if number not in ROWS] == []
    assert len({stub.number for stub in STUBS}) == len(STUBS)
    assert len({row.name for row in ROWS.values()}) == len(ROWS)


def test_absent_calls_say_why() -> None:
    syscalls.load()
    absent = [row for row in ROWS.values() if row.support is Support.NONE]
    assert absent
    assert all(row.missing and row.errnos for row in absent)


def test_a_call_with_a_handler_has_no_row_among_the_absent() -> None:
    syscalls.load()
    assert [stub.name for stub in STUBS if ROWS[stub.number].support is not Support.NONE] == []
