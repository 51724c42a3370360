"""Descriptor tables, dup2(2)."""

from __future__ import annotations

from asyncsentry.fs.fdtable import FdTable, drop
from asyncsentry.fs.file import File


async def replace(table: FdTable, fd: int) -> None:
    await drop(table.take(fd))
    table.put(fd, File(None, 0))


async def test_the_lowest_free_number_is_taken_whatever_was_closed() -> None:
    table = FdTable()
    for _ in range(6):
        table.install(File(None, 0))
    for fd in (4, 1, 3):
        await table.close(fd)
    table.put(1, File(None, 0))
    assert [table.install(File(None, 0)) for _ in range(4)] == [3, 4, 6, 7]


async def test_a_number_replaced_over_and_over_is_remembered_once() -> None:
    table = FdTable()
    for _ in range(3):
        table.install(File(None, 0))
    for _ in range(100):
        await replace(table, 2)
    assert len(table._free) == 1
    await table.close(2)
    assert table.install(File(None, 0)) == 2
