"""What the three kinds of System V IPC objects share: numbers, keys, owners and permissions, sysvipc(7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from asyncsentry.abi import ipc_h as abi
from asyncsentry.errnos import EACCES, EEXIST, EIDRM, EINVAL, ENOENT, ENOSPC, EPERM
from asyncsentry.tasks.credentials import CAP_IPC_OWNER, CAP_SYS_ADMIN, Credentials

_INDEX_LIMIT = 1 << 15
_SEQUENCE_LIMIT = 1 << 16
_CYCLE_MIN = 64


class IpcObject:
    """One object with a key, an owner and a creator."""

    def __init__(self, key: int, mode: int, creator: Credentials) -> None:
        self.id = -1
        self.key = key
        self.mode = mode & 0o777
        self.uid = self.cuid = creator.euid
        self.gid = self.cgid = creator.egid
        self.is_removed = False

    @property
    def sequence(self) -> int:
        """Tells numbers of the same index apart."""
        return self.id // _INDEX_LIMIT

    def check_access(self, credentials: Credentials, wanted: int) -> None:
        """EACCES unless the mode grants ``wanted`` (as its own three bits, e.g. 4 to read); Linux's ipcperms()."""
        granted = self.mode
        if credentials.euid in (self.uid, self.cuid):
            granted >>= 6
        elif credentials.in_group(self.gid) or credentials.in_group(self.cgid):
            granted >>= 3
        if wanted & ~granted & 7 and not credentials.has(CAP_IPC_OWNER):
            raise EACCES(f"the object with key {self.key:#x} is another's")

    def check_owner(self, credentials: Credentials) -> None:
        """EPERM unless the caller may change or remove it."""
        if credentials.euid not in (self.uid, self.cuid) and not credentials.has(CAP_SYS_ADMIN):
            raise EPERM("not the owner's")

    def set_owner(self, uid: int, gid: int, mode: int) -> None:
        """Changes owner and permission bits, IPC_SET."""
        if uid == 0xFFFFFFFF or gid == 0xFFFFFFFF:
            raise EINVAL("no such user or group")
        self.uid, self.gid = uid, gid
        self.mode = self.mode & ~0o777 | mode & 0o777

    def pack_permissions(self) -> bytes:
        """Lays out ``struct ipc64_perm``."""
        return abi.IPC_PERM.pack(
            self.key, self.uid, self.gid, self.cuid, self.cgid, self.mode, self.sequence & 0xFFFF, 0, 0)


Kind = TypeVar("Kind", bound=IpcObject)


class IpcTable(Generic[Kind]):
    """All objects of one kind in a sandbox."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._objects: dict[int, Kind] = {}
        self._keys: dict[int, Kind] = {}
        self._sequence = 0
        self._last_index = -1

    @property
    def limit(self) -> int:
        """How many there may be; those of a kernel ask its parameters."""
        return self._limit

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def highest_index(self) -> int:
        """The highest index in use; 0 if there is none, as the ``*_INFO`` commands say."""
        return max(self._objects, default=0)

    def find_key(self, key: int, flags: int) -> Kind | None:
        """Finds what a ``*get`` call asks for; ``None`` says: make one. Checks IPC_CREAT and IPC_EXCL."""
        if key == abi.IPC_PRIVATE:
            return None
        found = self._keys.get(key)
        if found is None and not flags & abi.IPC_CREAT:
            raise ENOENT(f"nothing with key {key:#x}")
        if found is not None and flags & abi.IPC_CREAT and flags & abi.IPC_EXCL:
            raise EEXIST(f"key {key:#x} is taken")
        return found

    def check_room(self) -> None:
        """ENOSPC if there are as many as there may be."""
        if len(self._objects) >= self.limit:
            raise ENOSPC(f"limit of {self.limit} objects")

    def add(self, item: Kind) -> int:
        """Numbers a new object."""
        # As ipc_idr_alloc() does: indices go round, and each round has a sequence number of its own.
        cycle = min(max(len(self._objects) * 3 // 2, _CYCLE_MIN), _INDEX_LIMIT)
        index = (self._last_index + 1) % cycle
        while index in self._objects:
            index = (index + 1) % cycle
        if index <= self._last_index:
            self._sequence = (self._sequence + 1) % _SEQUENCE_LIMIT
        self._last_index = index
        item.id = self._sequence * _INDEX_LIMIT + index
        self._objects[index] = item
        if item.key != abi.IPC_PRIVATE:
            self._keys[item.key] = item
        return item.id

    def get(self, ident: int) -> Kind:
        """Finds an object by number; EINVAL, or EIDRM for one whose number has been given on."""
        found = self._objects.get(ident % _INDEX_LIMIT) if ident >= 0 else None
        if found is None:
            raise EINVAL(f"no object {ident}")
        if found.id != ident:
            raise EIDRM(f"object {ident} is gone")
        return found

    def by_index(self, index: int) -> Kind:
        """Finds an object by its place in the table, for the ``*_STAT`` commands."""
        found = self._objects.get(index)
        if found is None:
            raise EINVAL(f"nothing at index {index}")
        return found

    def forget_key(self, item: Kind) -> None:
        """Lets nobody find it by key any more."""
        if self._keys.get(item.key) is item:
            del self._keys[item.key]
        item.key = abi.IPC_PRIVATE

    def remove(self, item: Kind) -> None:
        """Takes an object out of the table."""
        self.forget_key(item)
        self._objects.pop(item.id % _INDEX_LIMIT, None)
        item.is_removed = True
