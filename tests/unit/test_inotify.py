"""What a program sees of inotify(7): queues, limits and the ends of watches."""

from __future__ import annotations

import stat
import struct

import pytest
from guest_thread import Guest, make_guest

from asyncsentry import errnos
from asyncsentry.abi.inotify_h import (
    IN_ALL_EVENTS,
    IN_DELETE_SELF,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_Q_OVERFLOW,
    MAX_QUEUED_EVENTS,
    MAX_USER_INSTANCES,
)
from asyncsentry.fs.anon import PIPE_FS, AnonInode
from asyncsentry.fs.inotify import InotifyFile, InotifyState, is_valid_mask
from asyncsentry.fs.notify import IN_CREATE, IN_MODIFY, IN_OPEN
from asyncsentry.syscalls.inotify import inotify_init, inotify_init1, inotify_rm_watch


def make_instance() -> tuple[InotifyFile, AnonInode]:
    return InotifyFile(AnonInode(PIPE_FS, 1), 0, InotifyState(), 0), AnonInode(PIPE_FS, 2, stat.S_IFDIR)


def read_events(file: InotifyFile, count: int = 1 << 20) -> list[tuple[int, int, bytes]]:
    data, events = file.try_read(count), []
    while data:
        wd, mask, _, length = struct.unpack_from("<iIII", data)
        events.append((wd, mask, data[16 : 16 + length].rstrip(b"\0")))
        data = data[16 + length :]
    return events


def test_events_come_with_names_and_repeats_are_one():
    file, inode = make_instance()
    wd = file.add_watch(inode, IN_ALL_EVENTS)
    for name in ("a", "a", "sixteen-letters!", "a"):
        inode.watches.notify(IN_CREATE, name, 0)
    assert read_events(file) == [(wd, IN_CREATE, b"a"), (wd, IN_CREATE, b"sixteen-letters!"), (wd, IN_CREATE, b"a")]
    with pytest.raises(errnos.WouldBlock):
        file.try_read(4096)


def test_only_what_is_asked_for_is_reported():
    file, inode = make_instance()
    wd = file.add_watch(inode, IN_MODIFY | IN_EXCL_UNLINK)
    inode.watches.notify(IN_OPEN, "", 0)
    inode.watches.notify(IN_MODIFY, "gone", 0, True)
    assert not file.poll()
    assert file.add_watch(inode, IN_OPEN | IN_MASK_ADD) == wd
    inode.watches.notify(IN_OPEN, "", 0)
    assert read_events(file) == [(wd, IN_OPEN, b"")]
    with pytest.raises(errnos.EEXIST):
        file.add_watch(inode, IN_OPEN | IN_MASK_CREATE)


def test_a_watch_ends_once_by_request_by_its_first_event_or_with_its_file():
    file, inode = make_instance()
    first = file.add_watch(inode, IN_OPEN | IN_ONESHOT)
    inode.watches.notify(IN_OPEN, "", 0)
    assert read_events(file) == [(first, IN_OPEN, b""), (first, IN_IGNORED, b"")]
    assert inode.watches is None
    second = file.add_watch(inode, IN_DELETE_SELF)
    inode.watches.notify(IN_DELETE_SELF, "", 0)
    assert read_events(file) == [(second, IN_DELETE_SELF, b""), (second, IN_IGNORED, b"")]
    third = file.add_watch(inode, IN_OPEN)
    file.remove_watch(third)
    assert read_events(file) == [(third, IN_IGNORED, b"")]
    with pytest.raises(errnos.EINVAL):
        file.remove_watch(third)


def test_a_read_gives_whole_events_only():
    file, inode = make_instance()
    file.add_watch(inode, IN_ALL_EVENTS)
    for name in ("a", "b"):
        inode.watches.notify(IN_CREATE, name, 0)
    with pytest.raises(errnos.EINVAL):
        file.try_read(31)
    assert len(file.try_read(63)) == 32
    assert len(file.try_read(63)) == 32


def test_too_many_events_are_told_of_by_one():
    file, inode = make_instance()
    file.add_watch(inode, IN_ALL_EVENTS)
    for number in range(MAX_QUEUED_EVENTS + 5):
        inode.watches.notify(IN_CREATE, str(number), 0)
    events = read_events(file)
    assert len(events) == MAX_QUEUED_EVENTS + 1
    assert events[-1] == (-1, IN_Q_OVERFLOW, b"")


def test_masks_need_an_event():
    assert is_valid_mask(IN_OPEN)
    assert not is_valid_mask(0)
    assert not is_valid_mask(IN_MASK_ADD)
    assert not is_valid_mask(IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE)


@pytest.fixture
async def guest() -> Guest:
    return await make_guest()


async def test_instances_are_counted_and_given_back(guest):
    fds = [inotify_init(guest.thread) for _ in range(MAX_USER_INSTANCES)]
    with pytest.raises(errnos.EMFILE):
        inotify_init1(guest.thread, 0)
    file, inode = guest.thread.fds.get(fds[0]), AnonInode(PIPE_FS, 2)
    file.add_watch(inode, IN_OPEN)
    assert guest.kernel.inotify.watches == 1
    await guest.thread.fds.close(fds[0])
    assert (guest.kernel.inotify.watches, inode.watches) == (0, None)
    assert inotify_init1(guest.thread, 0) == fds[0]
    with pytest.raises(errnos.EINVAL):
        inotify_rm_watch(guest.thread, fds[0], 1)
    with pytest.raises(errnos.EINVAL):
        inotify_init1(guest.thread, 1)
