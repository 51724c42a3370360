"""When to spin for the next trap and when to sleep until the doorbell rings: an account in microseconds.

Spinning answers a guest that comes back at once in 2.0 µs, the doorbell in 4.9 (design §3), so each trap caught by
spinning earns the difference. But who spins must wake guests on another CPU, some 40 µs away, where the doorbell hands
its own CPU over; and a spin that catches nothing has cost all of its time besides. When the account runs
dry, spinning is given up for a number of bells, twice as many each time it proves wrong again: guests that
take turns (two processes at a pipe), that compute, or that have no CPU to themselves soon get the doorbell only.
"""

from __future__ import annotations

HIT_EARNS_US = 3
WAKE_COSTS_US = 35
MISS_COSTS_US = 60
CREDIT_US = 400
"""Where the account is dry below zero, and full above."""
BELLS_MIN, BELLS_MAX = 64, 8192


class SpinPolicy:
    """Decides for one platform. Pure: no clock, no loop."""

    __slots__ = ("_balance_us", "_bells", "_bells_left", "is_hot", "may_spin")

    def __init__(self, cpus: int) -> None:
        self.may_spin = cpus > 1
        self.is_hot = False
        """Whether guests and sentry spin now."""
        self._balance_us = 0
        self._bells = BELLS_MIN // 2
        self._bells_left = 0

    def settle(self, hits: int, wakes: int, misses: int) -> None:
        """Books what happened while hot; may turn spinning off."""
        self._balance_us += hits * HIT_EARNS_US - wakes * WAKE_COSTS_US - misses * MISS_COSTS_US
        if self._balance_us >= CREDIT_US:
            self._balance_us = CREDIT_US
            self._bells = BELLS_MIN // 2
        elif self._balance_us <= -CREDIT_US:
            self.is_hot = False
            self._bells = min(self._bells * 2, BELLS_MAX)
            self._bells_left = self._bells

    def rang(self, bells: int) -> bool:
        """Counts bells while cold; true when it is time to try spinning again."""
        self._bells_left -= bells
        if not self.may_spin or self._bells_left > 0:
            return False
        self.is_hot = True
        self._balance_us = 0
        return True
