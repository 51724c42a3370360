"""System V semaphores: sets of counters changed all at once or not at all, semget(2), semop(2), semctl(2).

A call that cannot be done yet is kept as a :class:`Pending`; whoever changes a set then completes the pending
calls that have become possible, oldest first, so that a thread that wakes another cannot overtake it. Undo
adjustments are kept per process, as threads of glibc share them (CLONE_SYSVSEM). After ipc/sem.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from asyncsentry.abi import ipc_h as abi
from asyncsentry.clock import CLOCK_REALTIME, NS_PER_SECOND, Clock
from asyncsentry.errnos import EAGAIN, EFBIG, EIDRM, EINVAL, ENOSPC, ERANGE, LinuxError
from asyncsentry.tasks.ipc import IpcObject, IpcTable
from asyncsentry.waiter import POLLIN, WaitQueue

if TYPE_CHECKING:
    from asyncsentry.sysctl import Sysctls
    from asyncsentry.tasks.credentials import Credentials


class Operation(NamedTuple):
    """One change of a semop(2) call."""

    number: int
    change: int
    flags: int


class _Blocked(Exception):
    """An operation cannot be done yet."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation


class UndoList:
    """What the exit of one process gives back: an adjustment per semaphore."""

    def __init__(self) -> None:
        self.adjustments: dict[SemaphoreSet, dict[int, int]] = {}

    def of(self, semaphores: SemaphoreSet) -> dict[int, int]:
        """Gives the adjustments of one set by semaphore."""
        return self.adjustments.setdefault(semaphores, {})

    def apply(self, pid: int) -> None:
        """Gives everything back; done once, when the process ends."""
        adjustments, self.adjustments = self.adjustments, {}
        for semaphores, by_number in adjustments.items():
            if not semaphores.is_removed:
                semaphores.adjust(by_number, pid)


class Pending:
    """A semop(2) call that waits."""

    def __init__(self, operations: Sequence[Operation], undo: UndoList, pid: int, blocked_on: Operation) -> None:
        self.operations = operations
        self.undo = undo
        self.pid = pid
        self.blocked_on = blocked_on
        self.queue = WaitQueue()
        self.is_done = False
        self.error: LinuxError | None = None

    def finish(self, error: LinuxError | None = None) -> None:
        """Ends it, with success or an error."""
        self.is_done = True
        self.error = error
        self.queue.notify(POLLIN)


class SemaphoreSet(IpcObject):
    """One set."""

    def __init__(self, table: SemaphoreTable, key: int, count: int, mode: int, creator: Credentials) -> None:
        super().__init__(key, mode, creator)
        self.table = table
        self.values = [0] * count
        self.last_pids = [0] * count
        self.operation_time = 0
        self.change_time = table.now()
        self.pending: list[Pending] = []

    def operate(self, operations: Sequence[Operation], undo: UndoList, pid: int) -> Pending | None:
        """Does all operations, or keeps the call as pending; EAGAIN instead if the one in the way says so."""
        if max(operation.number for operation in operations) >= len(self.values):
            raise EFBIG(f"the set has {len(self.values)} semaphores")
        try:
            self._do_all(operations, undo, pid)
        except _Blocked as blocked:
            if blocked.operation.flags & abi.IPC_NOWAIT:
                raise EAGAIN(f"semaphore {blocked.operation.number} is in the way") from None
            pending = Pending(operations, undo, pid, blocked.operation)
            self.pending.append(pending)
            return pending
        self.settle()
        return None

    def _do_all(self, operations: Sequence[Operation], undo: UndoList, pid: int) -> None:
        values = list(self.values) if len(operations) > 1 else self.values
        adjustments = undo.adjustments.get(self, {})
        changed_adjustments: dict[int, int] = {}
        for operation in operations:
            number, change, flags = operation
            result = values[number] + change
            if (change == 0 and values[number]) or result < 0:
                raise _Blocked(operation)
            if result > abi.SEMVMX:
                raise ERANGE(f"semaphore {number} would pass {abi.SEMVMX}")
            if flags & abi.SEM_UNDO:
                adjustment = changed_adjustments.get(number, adjustments.get(number, 0)) - change
                if not -abi.SEMAEM - 1 <= adjustment <= abi.SEMAEM:
                    raise ERANGE(f"undo of semaphore {number} would pass {abi.SEMAEM}")
                changed_adjustments[number] = adjustment
            if len(operations) > 1:
                values[number] = result
        if len(operations) > 1:
            self.values = values
        else:
            values[operations[0].number] += operations[0].change
        if changed_adjustments:
            undo.of(self).update(changed_adjustments)
        for operation in operations:
            self.last_pids[operation.number] = pid
        self.operation_time = self.table.now()

    def settle(self) -> None:
        """Completes pending calls that have become possible, oldest first, until none is."""
        index = 0
        while index < len(self.pending):
            pending = self.pending[index]
            try:
                self._do_all(pending.operations, pending.undo, pending.pid)
            except _Blocked as blocked:
                pending.blocked_on = blocked.operation
                if blocked.operation.flags & abi.IPC_NOWAIT:
                    del self.pending[index]
                    pending.finish(EAGAIN(f"semaphore {blocked.operation.number} is in the way"))
                else:
                    index += 1
            except ERANGE as error:
                del self.pending[index]
                pending.finish(error)
            else:
                del self.pending[index]
                pending.finish()
                if any(operation.change for operation in pending.operations):
                    index = 0

    def cancel(self, pending: Pending) -> None:
        """Forgets a pending call that was interrupted or timed out."""
        if pending in self.pending:
            self.pending.remove(pending)

    def count_waiting(self, number: int, for_zero: bool) -> int:
        """Counts who waits for a semaphore to grow, or to become zero: GETNCNT, GETZCNT."""
        return sum(pending.blocked_on.number == number and (pending.blocked_on.change == 0) == for_zero
                   for pending in self.pending)

    def set_values(self, values: dict[int, int], pid: int) -> None:
        """Sets semaphores, forgetting what was to be undone: SETVAL, SETALL."""
        for number, value in values.items():
            if not 0 <= value <= abi.SEMVMX:
                raise ERANGE(f"{value} is no value of a semaphore")
            if not 0 <= number < len(self.values):
                raise EINVAL(f"no semaphore {number}")
        for number, value in values.items():
            self.values[number] = value
            self.last_pids[number] = pid
            self.table.forget_undo(self, number)
        self.change_time = self.table.now()
        self.settle()

    def adjust(self, adjustments: dict[int, int], pid: int) -> None:
        """Applies a process's undo adjustments."""
        for number, adjustment in adjustments.items():
            if adjustment:
                self.values[number] = min(max(0, self.values[number] + adjustment), abi.SEMVMX)
                self.last_pids[number] = pid
        self.operation_time = self.table.now()
        self.settle()

    def pack(self) -> bytes:
        """Lays out ``struct semid64_ds``."""
        return self.pack_permissions() + abi.SEMID_DS.pack(self.operation_time, 0, self.change_time, 0,
                                                           len(self.values), 0, 0)


class SemaphoreTable(IpcTable[SemaphoreSet]):
    """All sets of a sandbox."""

    def __init__(self, clock: Clock, sysctls: Sysctls) -> None:
        super().__init__(abi.SEMMNI)
        self._clock = clock
        self.sysctls = sysctls
        self._undo_lists: dict[int, UndoList] = {}

    @property
    def limit(self) -> int:
        """How many there may be, kernel.sem."""
        return self.sysctls.integer("kernel.sem", 3)

    def now(self) -> int:
        """Gives the time in seconds, as sets keep it."""
        return self._clock.now_ns(CLOCK_REALTIME) // NS_PER_SECOND

    @property
    def semaphore_count(self) -> int:
        """Semaphores in all sets together."""
        return sum(len(semaphores.values) for semaphores in self)

    def open(self, key: int, count: int, flags: int, credentials: Credentials) -> SemaphoreSet:
        """Finds or makes a set, semget(2)."""
        if not 0 <= count <= self.sysctls.integer("kernel.sem", 0):
            raise EINVAL(f"a set of {count} semaphores")
        found = self.find_key(key, flags)
        if found is not None:
            if count > len(found.values):
                raise EINVAL(f"the set has {len(found.values)} semaphores")
            found.check_access(credentials, (flags >> 6 | flags >> 3 | flags) & 7)
            return found
        if not count:
            raise EINVAL("an empty set")
        self.check_room()
        if self.semaphore_count + count > self.sysctls.integer("kernel.sem", 1):
            raise ENOSPC("as many semaphores as there may be")
        made = SemaphoreSet(self, key, count, flags, credentials)
        self.add(made)
        return made

    def destroy(self, semaphores: SemaphoreSet) -> None:
        """Removes a set, IPC_RMID; who waits for it is told EIDRM."""
        self.remove(semaphores)
        for undo in self._undo_lists.values():
            undo.adjustments.pop(semaphores, None)
        pending, semaphores.pending = semaphores.pending, []
        for call in pending:
            call.finish(EIDRM("the set was removed"))

    def undo_of(self, pid: int) -> UndoList:
        """Gives the undo list of a process."""
        return self._undo_lists.setdefault(pid, UndoList())

    def forget_undo(self, semaphores: SemaphoreSet, number: int) -> None:
        """Forgets what any process would undo at one semaphore."""
        for undo in self._undo_lists.values():
            undo.adjustments.get(semaphores, {}).pop(number, None)

    def process_ends(self, pid: int) -> None:
        """Does what the process left to be undone, exit(2)."""
        undo = self._undo_lists.pop(pid, None)
        if undo is not None:
            undo.apply(pid)
