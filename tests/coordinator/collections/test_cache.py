"""The bounded cache."""

from __future__ import annotations

from coordinator.collections.cache import WeightedLru


def test_the_least_recently_used_entry_leaves_first() -> None:
    cache: WeightedLru[str, int] = WeightedLru(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)
    assert cache.get("a") == 1
    cache.put("c", 3, 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_weight_is_bounded_and_replaced_entries_are_counted_once() -> None:
    cache: WeightedLru[str, int] = WeightedLru(10)
    for _ in range(5):
        cache.put("a", 1, 9)
    cache.put("huge", 2, 11)
    assert (cache.get("a"), cache.get("huge")) == (1, None)
    cache.put("b", 3, 1)
    assert (cache.get("a"), cache.get("b")) == (1, 3)
