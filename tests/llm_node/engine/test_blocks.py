from __future__ import annotations

import random

import pytest

from llm_node.engine.blocks import BlockPool
from ragschema.errors import InternalError


def test_allocates_all_or_nothing() -> None:
    pool = BlockPool(4)
    first = pool.allocate(3)
    assert first is not None
    assert pool.allocate(2) is None
    assert pool.free == 1
    pool.release(first)
    assert (pool.free, pool.used) == (4, 0)
    pool.check_integrity([])


def test_a_named_block_is_found_after_its_release_until_it_is_given_away() -> None:
    pool = BlockPool(2)
    held = pool.allocate(2)
    assert held is not None
    pool.name(held[0], b"a")
    pool.name(held[1], b"b")
    pool.release(held)
    assert pool.find([b"a", b"b", b"c"]) == held
    assert pool.find([b"c", b"a"]) == []
    assert pool.cached_among(held) == 2
    assert pool.allocate(1) == [held[1]]  # the end of the chain goes first
    assert pool.find([b"a", b"b"]) == [held[0]]


def test_a_forgotten_block_is_not_found_and_holds_nothing_worth_keeping() -> None:
    pool = BlockPool(2)
    held = pool.allocate(2)
    assert held is not None
    pool.name(held[0], b"a")
    pool.name(held[1], b"b")
    pool.forget(held[1:])
    assert pool.find([b"a", b"b"]) == held[:1]
    pool.check_integrity([held])
    pool.release(held)
    pool.check_integrity([])
    assert pool.cached_among(held) == 1


def test_least_recently_used_goes_first() -> None:
    pool = BlockPool(2)
    one, two = pool.allocate(1), pool.allocate(1)
    assert one is not None
    assert two is not None
    pool.name(one[0], b"1")
    pool.name(two[0], b"2")
    pool.release(one)
    pool.release(two)
    pool.hold(one)
    pool.release(one)
    assert pool.allocate(1) == two
    assert pool.find([b"1"]) == one


def test_shared_blocks_are_free_after_their_last_holder() -> None:
    pool = BlockPool(1)
    held = pool.allocate(1)
    assert held is not None
    pool.hold(held)
    pool.release(held)
    assert pool.free == 0
    pool.check_integrity([held])
    pool.release(held)
    assert pool.free == 1


def test_without_reuse_nothing_is_found() -> None:
    pool = BlockPool(1, reuse=False)
    held = pool.allocate(1)
    assert held is not None
    pool.name(held[0], b"a")
    assert pool.find([b"a"]) == []


def test_the_first_of_equal_blocks_keeps_the_name() -> None:
    pool = BlockPool(2)
    held = pool.allocate(2)
    assert held is not None
    pool.name(held[0], b"a")
    pool.name(held[1], b"a")
    assert pool.find([b"a"]) == [held[0]]
    pool.check_integrity([held])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([], "2 references|1 references"),
        ([[0, 1], [0]], "1 references, 2 tables"),
        ([[0, 0, 1]], "holds a block twice"),
    ],
)
def test_integrity_sees_leaks_and_double_holders(tables: list[list[int]], message: str) -> None:
    pool = BlockPool(3)
    assert pool.allocate(2) == [0, 1]
    pool.check_integrity([[0, 1]])
    with pytest.raises(InternalError, match=message):
        pool.check_integrity(tables)


def test_releasing_twice_is_caught() -> None:
    pool = BlockPool(1)
    held = pool.allocate(1)
    assert held is not None
    pool.release(held)
    with pytest.raises(AssertionError, match="released twice"):
        pool.release(held)


@pytest.mark.parametrize("seed", range(20))
def test_random_life_keeps_integrity(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    pool = BlockPool(12)
    tables: list[list[int]] = []
    hits = 0
    for step in range(300):
        names = [bytes([rng.randrange(3), depth]) for depth in range(rng.randrange(1, 4))]
        action = rng.random()
        if action < 0.5:
            shared = pool.find(names)
            hits += len(shared)
            pool.hold(shared)
            fresh = pool.allocate(rng.randrange(1, 4))
            if fresh is None:
                pool.release(shared)
            else:
                tables.append([*shared, *fresh])
        elif tables and action < 0.8:
            pool.release(tables.pop(rng.randrange(len(tables))))
        elif tables:
            for block, name in zip(rng.choice(tables), names, strict=False):
                pool.name(block, name)
        pool.check_integrity(tables)
        assert pool.free + pool.used == 12, step
    assert hits > 0
