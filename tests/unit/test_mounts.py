"""mount(2), umount2(2) and pivot_root(2) as programs see them."""

from __future__ import annotations

import pytest
from file_guest import FileGuest, make_file_guest

from asyncsentry import errnos
from asyncsentry.abi import mount_h as abi
from asyncsentry.abi.fcntl_h import AT_FDCWD
from asyncsentry.fs.hostfacts import HostFacts
from asyncsentry.fs.path import path_of, resolve


async def make() -> FileGuest:
    guest = await make_file_guest()
    guest.kernel.host_facts = HostFacts.capture()
    for path in ("/a", "/b", "/c"):
        await guest.mkdir(path)
    return guest


async def mount(guest: FileGuest, source: str, target: str, kind: str = "tmpfs", flags: int = 0, data: int = 0) -> None:
    await guest.call("mount", source, target, kind, flags, data)


async def options(guest: FileGuest, path: str) -> str:
    return (await resolve(guest.thread, AT_FDCWD, path)).mount.option_names()


async def test_a_tmpfs_is_mounted_with_its_options() -> None:
    guest = await make()
    await mount(guest, "s", "/a", flags=abi.MS_NOSUID, data=guest.at("size=8k,mode=700", 0x109000))
    assert (await guest.stat("/a")).mode == 0o040700
    await guest.write_file("/a/x", bytes(8192))
    with pytest.raises(errnos.ENOSPC):
        await guest.write_file("/a/y", b"x")
    assert await options(guest, "/a") == "rw,nosuid,relatime"


@pytest.mark.parametrize(
    ("target", "kind", "flags", "data", "error"),
    [
        ("/nothing", "tmpfs", 0, "", "ENOENT"), ("/a", "ext4", 0, "", "ENODEV"), ("/a", "tmpfs", 0, "size=x", "EINVAL"),
        ("/a", "tmpfs", 0, "uid=99999999999", "EINVAL"), ("/a", "devpts", 0, "gid=-5", "EINVAL"),
        ("/a", "tmpfs", 0, f"size={1 << 60}t", "EINVAL"), ("/a", "devpts", 0, "uid=4294967295", "EINVAL"),
        ("/a", "tmpfs", 0, "nonsense=1", "EINVAL"), ("/a", "tmpfs", abi.MS_REMOUNT, "", "EINVAL"),
        ("/file", "tmpfs", 0, "", "ENOTDIR"), ("/a", "", abi.MS_MOVE, "", "EINVAL"),
    ],
)  # fmt: skip
async def test_a_mount_says_what_is_wrong(target: str, kind: str, flags: int, data: str, error: str) -> None:
    guest = await make()
    await guest.write_file("/file")
    with pytest.raises(getattr(errnos, error)):
        await mount(guest, "/b", target, kind, flags, guest.at(data, 0x109000))


async def test_only_cap_sys_admin_mounts() -> None:
    guest = await make()
    guest.become(1000)
    with pytest.raises(errnos.EPERM):
        await mount(guest, "s", "/a")
    with pytest.raises(errnos.EPERM):
        await guest.call("umount2", "/a", 0)


async def test_a_bind_shows_one_tree_in_two_places_with_flags_of_its_own() -> None:
    guest = await make()
    await mount(guest, "s", "/a")
    await guest.mkdir("/a/inner")
    await mount(guest, "t", "/a/inner")
    await guest.write_file("/a/inner/deep")
    await mount(guest, "/a", "/b", "", abi.MS_BIND)
    assert await guest.listing("/b/inner") == [".", ".."]
    await mount(guest, "/a", "/c", "", abi.MS_BIND | abi.MS_REC)
    assert await guest.listing("/c/inner") == [".", "..", "deep"]
    await mount(guest, "", "/b", "", abi.MS_REMOUNT | abi.MS_BIND | abi.MS_RDONLY)
    with pytest.raises(errnos.EROFS):
        await guest.write_file("/b/x")
    await guest.write_file("/a/x")
    assert "x" in await guest.listing("/b")


async def test_umount_minds_what_is_in_use() -> None:
    guest = await make()
    await mount(guest, "s", "/a")
    fd = await guest.open("/a/x")
    with pytest.raises(errnos.EBUSY):
        await guest.call("umount2", "/a", 0)
    await guest.call("close", fd)
    await guest.mkdir("/a/inner")
    await mount(guest, "t", "/a/inner")
    with pytest.raises(errnos.EBUSY):
        await guest.call("umount2", "/a", 0)
    await guest.call("chdir", "/a/inner")
    await guest.call("umount2", "/a", abi.MNT_DETACH)
    assert await guest.listing("/a") == [".", ".."]
    await guest.write_file("still")
    for target in ("/a", "/", "/b"):
        with pytest.raises((errnos.EINVAL, errnos.EBUSY)):
            await guest.call("umount2", target, 0)
    assert guest.kernel.mounts.count == 1


async def test_a_mount_is_moved_with_all_below_it() -> None:
    guest = await make()
    await mount(guest, "s", "/a")
    await guest.mkdir("/a/inner")
    await mount(guest, "t", "/a/inner")
    with pytest.raises(errnos.ELOOP):
        await mount(guest, "/a", "/a/inner", "", abi.MS_MOVE)
    await mount(guest, "/a", "/b", "", abi.MS_MOVE)
    location = await resolve(guest.thread, AT_FDCWD, "/b/inner")
    assert path_of(location, guest.thread.fs.root) == "/b/inner"
    assert await guest.listing("/a") == [".", ".."]


async def test_pivot_root_puts_the_old_root_away() -> None:
    guest = await make()
    await mount(guest, "s", "/a")
    await guest.mkdir("/a/old")
    with pytest.raises(errnos.EBUSY):
        await guest.call("pivot_root", "/b", "/b")
    with pytest.raises(errnos.EINVAL):
        await guest.call("pivot_root", "/a/old", "/a/old")
    await guest.call("pivot_root", "/a", "/a/old")
    assert await guest.listing("/") == [".", "..", "old"]
    assert "b" in await guest.listing("/old")
    await guest.call("umount2", "/old", abi.MNT_DETACH)
    assert await guest.listing("/old") == [".", ".."]


async def test_pivot_root_in_place_and_umount_of_dot() -> None:
    guest = await make()
    await mount(guest, "s", "/a")
    await guest.write_file("/a/new")
    await guest.call("chdir", "/a")
    await guest.call("pivot_root", ".", ".")
    await guest.call("umount2", ".", abi.MNT_DETACH)
    assert await guest.listing("/") == [".", "..", "new"]


async def test_a_copied_namespace_goes_its_own_way() -> None:
    guest = await make()
    await mount(guest, "s", "/a")
    other, pairs = guest.kernel.mounts.copy()
    assert len(pairs) == 2
    other.umount(pairs[(await resolve(guest.thread, AT_FDCWD, "/a")).mount])
    assert (len(list(other)), len(list(guest.kernel.mounts))) == (1, 2)


async def test_mounts_can_be_stacked_higher_than_python_recurses() -> None:
    guest = await make()
    for _ in range(1100):
        await mount(guest, "s", "/a")
    other, pairs = guest.kernel.mounts.copy()
    assert len(pairs) == len(list(other)) == 1101
    await guest.call("mount", "/", "/b", "", abi.MS_BIND | abi.MS_REC, 0)
    assert len(list(guest.kernel.mounts)) == guest.kernel.mounts.count == 2202
    await guest.call("umount2", "/b", abi.MNT_DETACH)
    assert guest.kernel.mounts.count == 1101
