"""What a path leads to: links, dots, mounts, roots, permissions, and openat2's restrictions."""

from __future__ import annotations

import pytest
from file_guest import FileGuest, make_file_guest

from asyncsentry import errnos
from asyncsentry.abi.fcntl_h import (
    AT_FDCWD,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOFOLLOW,
    O_PATH,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from asyncsentry.abi.mount_h import MS_NODEV, MS_RDONLY
from asyncsentry.fs import names, vfs
from asyncsentry.fs.dcache import prune
from asyncsentry.fs.path import location_of, path_of, resolve
from asyncsentry.fs.pipe import make_pipe
from asyncsentry.fs.tmpfs import TmpFileSystem


async def make_tree() -> FileGuest:
    guest = await make_file_guest()
    for directory in ("/usr", "/usr/lib", "/usr/bin", "/tmp", "/mnt"):
        await guest.mkdir(directory)
    await guest.symlink("usr/lib", "/lib")
    await guest.write_file("/usr/lib/x", b"content")
    return guest


async def where(guest: FileGuest, path: str, follow: bool = True, flags: int = 0, dirfd: int = AT_FDCWD) -> str:
    location = await resolve(guest.thread, dirfd, path, follow, resolve_flags=flags)
    return path_of(location, guest.thread.fs.root)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", "/"), ("//usr///lib//x", "/usr/lib/x"), ("/usr/lib/", "/usr/lib"), ("/lib/x", "/usr/lib/x"),
        ("/usr/./lib/../bin", "/usr/bin"), ("/..", "/"), ("/../../usr", "/usr"), ("usr/lib/x", "/usr/lib/x"),
        ("/lib/../bin", "/usr/bin"), ("/lib/", "/usr/lib"), (".", "/"),
    ],
)  # fmt: skip
async def test_a_path_leads_where_linux_says(path: str, place: str) -> None:
    guest = await make_tree()
    assert await where(guest, path) == place
    assert await where(guest, path) == place  # and again from the cache


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", "ENOENT"), ("/nothing", "ENOENT"), ("/nothing/x", "ENOENT"), ("/usr/lib/x/", "ENOTDIR"),
        ("/usr/lib/x/y", "ENOTDIR"), ("/usr/lib/x/.", "ENOTDIR"), ("/usr/lib/x/..", "ENOTDIR"),
        ("/" + "n" * 256, "ENAMETOOLONG"), ("/" + "é" * 128, "ENAMETOOLONG"), ("/" + "n" * 255, "ENOENT"),
    ],
)  # fmt: skip
async def test_a_path_that_leads_nowhere_says_why(path: str, error: str) -> None:
    guest = await make_tree()
    for _ in range(2):
        with pytest.raises(getattr(errnos, error)):
            await where(guest, path)


async def test_a_link_is_followed_in_last_place_only_when_asked() -> None:
    guest = await make_tree()
    assert await where(guest, "/lib", follow=False) == "/lib"
    assert await where(guest, "/lib/", follow=False) == "/usr/lib"


async def test_a_loop_of_links_ends_after_forty() -> None:
    guest = await make_tree()
    await guest.symlink("b", "/a")
    await guest.symlink("a", "/b")
    with pytest.raises(errnos.ELOOP):
        await where(guest, "/a")
    await guest.write_file("/l0")
    for number in range(1, 42):
        await guest.symlink(f"l{number - 1}", f"/l{number}")
    assert await where(guest, "/l40") == "/l0"
    with pytest.raises(errnos.ELOOP):
        await where(guest, "/l41")


async def test_dotdot_leaves_a_mount_but_not_a_root() -> None:
    guest = await make_tree()
    other = TmpFileSystem(6, guest.clock)
    guest.kernel.mounts.mount(await resolve(guest.thread, AT_FDCWD, "/mnt"), other)
    await guest.mkdir("/mnt/deep")
    assert await where(guest, "/mnt/deep/../../usr") == "/usr"
    await guest.call("chroot", "/mnt")
    assert await where(guest, "/deep/../..") == "/"
    with pytest.raises(errnos.ENOENT):
        await where(guest, "/usr")


async def test_a_mount_covers_what_was_there_until_it_goes() -> None:
    guest = await make_tree()
    await guest.write_file("/mnt/below")
    mount = guest.kernel.mounts.mount(await resolve(guest.thread, AT_FDCWD, "/mnt"), TmpFileSystem(6, guest.clock))
    with pytest.raises(errnos.ENOENT):
        await where(guest, "/mnt/below")
    guest.kernel.mounts.umount(mount)
    assert await where(guest, "/mnt/below") == "/mnt/below"


async def test_a_removed_working_directory_still_has_a_parent_but_no_names() -> None:
    guest = await make_tree()
    await guest.mkdir("/tmp/gone")
    await guest.call("chdir", "/tmp/gone")
    await guest.call("rmdir", "/tmp/gone")
    assert await where(guest, "..") == "/tmp"
    for call in ("open", "mkdir"):
        with pytest.raises(errnos.ENOENT):
            await getattr(guest, call)("new")
    with pytest.raises(errnos.ENOENT):
        await guest.call("getcwd", 0, 100)
    assert path_of(guest.thread.fs.cwd, guest.thread.fs.root) == "/tmp/gone (deleted)"


async def test_a_directory_needs_its_search_bit() -> None:
    guest = await make_tree()
    await guest.mkdir("/secret", 0o700)
    await guest.write_file("/secret/x")
    guest.become(1000)
    for path in ("/secret/x", "/secret/nothing", "/secret/."):
        with pytest.raises(errnos.EACCES):
            await where(guest, path)
    assert await where(guest, "/secret") == "/secret"


@pytest.mark.parametrize(
    ("path", "flags", "error"),
    [
        ("../x", RESOLVE_BENEATH, "EXDEV"), ("/usr", RESOLVE_BENEATH, "EXDEV"), ("lib/../..", RESOLVE_BENEATH, "EXDEV"),
        ("absolute", RESOLVE_BENEATH, "EXDEV"), ("relative", RESOLVE_NO_SYMLINKS, "ELOOP"),
        ("cold", RESOLVE_CACHED, "EAGAIN"), ("over", RESOLVE_NO_XDEV, "EXDEV"), ("over/..", RESOLVE_NO_XDEV, "EXDEV"),
    ],
)  # fmt: skip
async def test_openat2_refuses_what_it_is_told_to(path: str, flags: int, error: str) -> None:
    guest = await make_tree()
    await guest.symlink("/usr/bin", "/usr/absolute")
    await guest.symlink("lib", "/usr/relative")
    await guest.mkdir("/usr/over")
    guest.kernel.mounts.mount(await resolve(guest.thread, AT_FDCWD, "/usr/over"), TmpFileSystem(6, guest.clock))
    fd = await guest.open("/usr", O_DIRECTORY)
    with pytest.raises(getattr(errnos, error)):
        await where(guest, path, flags=flags, dirfd=fd)


async def test_openat2_stays_in_a_root_it_is_given() -> None:
    guest = await make_tree()
    await guest.symlink("/bin", "/usr/absolute")
    fd = await guest.open("/usr", O_DIRECTORY)
    for path in ("absolute", "../../bin", "/bin"):
        assert await where(guest, path, flags=RESOLVE_IN_ROOT, dirfd=fd) == "/usr/bin"


async def test_open_creates_through_a_dangling_link_unless_exclusive() -> None:
    guest = await make_tree()
    await guest.symlink("made", "/tmp/link")
    with pytest.raises(errnos.EEXIST):
        await guest.open("/tmp/link", O_CREAT | O_EXCL | O_RDWR)
    await guest.open("/tmp/link")
    assert (await guest.stat("/tmp/made")).mode == 0o100644


@pytest.mark.parametrize(
    ("path", "flags", "error"),
    [
        ("/usr/lib", O_WRONLY, "EISDIR"), ("/usr/lib", O_CREAT, "EISDIR"), ("/usr/new/", O_CREAT, "EISDIR"),
        ("/usr/lib/x", O_DIRECTORY, "ENOTDIR"), ("/lib", O_NOFOLLOW, "ELOOP"), ("/usr", O_CREAT | O_EXCL, "EEXIST"),
        ("/lib", O_NOFOLLOW | O_DIRECTORY, "ENOTDIR"), ("/usr/lib", O_TRUNC, "EISDIR"), ("/usr/..", O_CREAT, "EISDIR"),
        ("/usr/lib/x", O_TMPFILE | O_RDWR, "ENOTDIR"), ("/usr", O_TMPFILE, "EINVAL"), ("/usr/nothing", 0, "ENOENT"),
        ("/usr/nothing/x", O_CREAT, "ENOENT"), ("/usr/lib/x/", O_RDWR, "ENOTDIR"),
    ],
)  # fmt: skip
async def test_open_says_what_is_wrong(path: str, flags: int, error: str) -> None:
    guest = await make_tree()
    with pytest.raises(getattr(errnos, error)):
        await guest.open(path, flags)


async def test_a_place_opened_with_o_path_is_neither_read_nor_written() -> None:
    guest = await make_tree()
    await guest.write_file("/secret", b"x")
    await guest.call("chmod", "/secret", 0)
    guest.become(1000)
    fd = await guest.open("/secret", O_PATH)
    await guest.call("fstat", fd, 0x102000)
    for call in ("fchmod", "lseek", "ftruncate", "ioctl"):
        with pytest.raises(errnos.EBADF):
            await guest.call(call, fd, *[0] * (2 if call in ("lseek", "ioctl") else 1))
    fd = await guest.open("/lib", O_PATH | O_NOFOLLOW)
    assert await guest.call("readlinkat", fd, "", 0x102000, 100) == 7


async def test_a_read_only_mount_refuses_what_changes_it() -> None:
    guest = await make_tree()
    namespace = guest.kernel.mounts
    namespace.bind(await resolve(guest.thread, AT_FDCWD, "/mnt"), await resolve(guest.thread, AT_FDCWD, "/usr"))
    (await resolve(guest.thread, AT_FDCWD, "/mnt")).mount.flags |= MS_RDONLY
    assert await guest.read_file("/mnt/lib/x") == b"content"
    for attempt in (guest.open("/mnt/lib/x", O_RDWR), guest.open("/mnt/new"), guest.mkdir("/mnt/d"),
                    guest.call("unlink", "/mnt/lib/x"), guest.call("chmod", "/mnt/lib/x", 0),
                    guest.call("access", "/mnt/lib/x", 2)):  # fmt: skip
        with pytest.raises(errnos.EROFS):
            await attempt
    with pytest.raises(errnos.EEXIST):
        await guest.mkdir("/mnt/lib")
    (await resolve(guest.thread, AT_FDCWD, "/mnt")).mount.flags &= ~MS_RDONLY
    with pytest.raises(errnos.EXDEV):
        await guest.call("link", "/usr/lib/x", "/mnt/y")
    await guest.open("/usr/lib/x", O_RDWR)


async def test_links_of_others_are_not_followed_in_shared_directories() -> None:
    guest = await make_tree()
    await guest.call("chmod", "/tmp", 0o1777)
    await guest.symlink("/usr/lib/x", "/tmp/root")
    guest.become(1000)
    await guest.symlink("/usr/lib/x", "/tmp/link")
    assert await where(guest, "/tmp/link") == "/usr/lib/x"
    guest.become(1001)
    assert await where(guest, "/tmp/root") == "/usr/lib/x"
    with pytest.raises(errnos.EACCES):
        await where(guest, "/tmp/link")
    with pytest.raises(errnos.EPERM):
        await guest.call("unlink", "/tmp/link")


async def test_a_nodev_mount_opens_no_devices() -> None:
    guest = await make_tree()
    await names.mknod(guest.thread, AT_FDCWD, "/null", 0o20666, 0x103)
    with pytest.raises(errnos.ENXIO):
        await guest.open("/null", O_RDWR)
    guest.thread.fs.root.mount.flags |= MS_NODEV
    with pytest.raises(errnos.EACCES):
        await guest.open("/null", O_RDWR)


async def test_a_file_without_a_place_has_a_description() -> None:
    guest = await make_tree()
    file = vfs.PathFile(None, O_PATH)
    assert path_of(location_of(file), guest.thread.fs.root) == "anon_inode:[path]"


async def test_absences_are_not_remembered_without_bound() -> None:
    guest = await make_tree()
    for number in range(2000):
        with pytest.raises(errnos.ENOENT):
            await where(guest, f"/tmp/{number}")
    assert len((await resolve(guest.thread, AT_FDCWD, "/tmp")).dentry.children) < 600


async def test_a_pipe_opened_anew_by_its_place_is_the_same_pipe() -> None:
    guest = await make_tree()
    reader, writer = make_pipe(7)
    again = await vfs.open_location(guest.thread, location_of(reader), O_RDWR)
    writer.try_write(b"hello")
    assert again.try_read(10) == b"hello"


async def test_a_walk_through_many_names_is_forgotten_but_for_what_is_in_use() -> None:
    guest = await make_tree()
    filesystem = guest.thread.fs.root.mount.filesystem
    filesystem.exclusive = False  # as a shared mount: the cache is kept small
    for number in range(2100):
        await guest.call("mknod", f"/usr/{number}", 0o100644, 0)
        await where(guest, f"/usr/{number}")
    fd = await guest.open("/usr/lib/x", O_RDWR)
    dentry = location_of(guest.thread.fds.get(fd)).dentry
    await guest.call("chdir", "/usr/bin")
    assert prune(filesystem.root_dentry) == 4  # usr, bin, lib, x
    assert (await resolve(guest.thread, AT_FDCWD, "/usr/lib/x")).dentry is dentry
    for number in range(2100):
        await where(guest, f"/usr/{number}")
    assert filesystem.cached < 2010
