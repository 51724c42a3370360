"""The account that decides between spinning and the doorbell."""

from __future__ import annotations

from asyncsentry.platforms.systrap.spinning import BELLS_MAX, BELLS_MIN, SpinPolicy


def bells_until_hot(policy: SpinPolicy) -> int:
    count = 1
    while not policy.rang(1):
        count += 1
    return count


def test_a_guest_that_comes_back_at_once_is_spun_for() -> None:
    policy = SpinPolicy(2)
    assert policy.rang(1)
    for _ in range(100):
        policy.settle(hits=64, wakes=0, misses=0)
    assert policy.is_hot


def test_one_processor_never_spins() -> None:
    policy = SpinPolicy(1)
    assert not policy.rang(1_000_000)


def test_guests_that_take_turns_get_the_doorbell_and_are_tried_ever_less_often() -> None:
    policy = SpinPolicy(2)
    waits = []
    for _ in range(12):
        waits.append(bells_until_hot(policy))
        while policy.is_hot:
            policy.settle(hits=2, wakes=1, misses=0)
    assert waits[1:4] == [BELLS_MIN, 2 * BELLS_MIN, 4 * BELLS_MIN]
    assert waits[-1] == BELLS_MAX


def test_spins_in_vain_end_spinning_soon() -> None:
    policy = SpinPolicy(2)
    policy.rang(1)
    policy.settle(hits=0, wakes=0, misses=7)
    assert not policy.is_hot


def test_a_good_run_forgives_earlier_ones() -> None:
    policy = SpinPolicy(2)
    for _ in range(5):
        bells_until_hot(policy)
        policy.settle(hits=0, wakes=0, misses=10)
    bells_until_hot(policy)
    policy.settle(hits=10_000, wakes=0, misses=0)
    policy.settle(hits=0, wakes=0, misses=20)
    assert bells_until_hot(policy) == BELLS_MIN
