"""Shares of time, exactly: fake units of work, no clock and no thread."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

import pytest

from llm_node.device.fair import Account, FairShares


def _play(weights: Sequence[float], units_s: Sequence[float], turns: int) -> list[int]:
    """Who had which turn while all want the device all along."""
    shares, accounts = FairShares(), [Account(weight) for weight in weights]
    for account in accounts:
        shares.arrive(account)
    had = []
    for _ in range(turns):
        chosen = shares.choose(accounts)
        assert chosen is not None
        number = accounts.index(chosen)
        had.append(number)
        shares.charge(chosen, units_s[number])
    return had


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1, 1), [100, 100]), ((3, 1), [150, 50]), ((1, 2, 5), [25, 50, 125]), ((7,), [200])],
)
def test_equal_units_are_shared_exactly(weights: tuple[float, ...], expected: list[int]) -> None:
    had = _play(weights, [1.0] * len(weights), 200)
    assert [had.count(number) for number in range(len(weights))] == expected


def test_time_counts_and_not_turns() -> None:
    had = _play([1, 1], [0.25, 1.0], 250)
    assert (had.count(0), had.count(1)) == (200, 50)


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_ever_further_ahead_than_a_unit(seed: int) -> None:
    """Of any two, over every stretch of turns, whatever the units' lengths."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    weights = [rng.choice([0.5, 1, 2, 4]) for _ in range(4)]
    shares, accounts = FairShares(), [Account(weight) for weight in weights]
    used = [[Fraction(0)] for _ in weights]
    longest_s = [Fraction(0)] * len(weights)
    for account in accounts:
        shares.arrive(account)
    for _ in range(300):
        chosen = shares.choose(accounts)
        assert chosen is not None
        spent_s = Fraction(rng.randrange(1, 64), 64)
        shares.charge(chosen, float(spent_s))
        for number, account in enumerate(accounts):
            gained = spent_s if account is chosen else Fraction(0)
            used[number].append(used[number][-1] + gained)
            longest_s[number] = max(longest_s[number], gained)
    normal = [[u / Fraction(w) for u in row] for row, w in zip(used, weights, strict=True)]
    most = [unit / Fraction(w) for unit, w in zip(longest_s, weights, strict=True)]
    for i in range(4):
        for j in range(i):
            gaps = [a - b for a, b in zip(normal[i], normal[j], strict=True)]
            assert max(gaps) - min(gaps) <= most[i] + most[j]


def test_who_comes_back_is_next_and_saved_nothing_up() -> None:
    shares, busy, idle = FairShares(), Account(1.0), Account(1.0)
    shares.arrive(busy)
    for _ in range(10):
        assert shares.choose([busy]) is busy
        shares.charge(busy, 1.0)
    shares.arrive(idle)
    had = []
    for _ in range(6):
        chosen = shares.choose([busy, idle])
        assert chosen is not None
        had.append(chosen is idle)
        shares.charge(chosen, 1.0)
    assert had == [True, False] * 3


def test_a_long_unit_is_paid_back_before_the_next() -> None:
    shares, steps, passes = FairShares(), Account(1.0), Account(1.0)
    shares.arrive(steps)
    shares.arrive(passes)
    had = ""
    for _ in range(12):
        chosen = shares.choose([steps, passes])
        assert chosen is not None
        had += "s" if chosen is steps else "P"
        shares.charge(chosen, 1.0 if chosen is steps else 4.0)
    assert had == "sPsssPssssPs"


def test_an_idle_device_forgets_debts() -> None:
    shares, one, other = FairShares(), Account(1.0), Account(1.0)
    shares.arrive(one)
    assert shares.choose([one]) is one
    shares.charge(one, 100.0)
    assert shares.choose([]) is None
    shares.rest([one, other])
    shares.arrive(other)
    shares.arrive(one)
    assert one.tag_s == other.tag_s == 100.0
