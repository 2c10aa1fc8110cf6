"""Vector search on servers: by hand, by dimension, by direction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ragschema.hardware.devices import Host
from ragschema.planner.cost.retrieval import Database, search_s

HOST = Host("host", 10, 1e12, 1e11, 1e9)
TREE = Database(1e9, 100.0, 0.01, 1000)


def test_levels_are_root_first_and_the_root_is_read_whole() -> None:
    # 1e9 leaves, 1e6 nodes above them, 1e3 roots.
    assert TREE.level_bytes == pytest.approx((1e3 * 100, 1e6 * 100 * 0.01, 1e9 * 100 * 0.01))


def test_one_query_of_a_tree_runs_on_one_core() -> None:
    leaf = 1e9 / 1e9
    assert search_s(TREE, HOST, 1, 1) == pytest.approx(leaf, rel=0.01)


def test_many_queries_share_the_memory_bandwidth() -> None:
    slow = replace(HOST, memory_bytes_per_s=2e9)
    assert search_s(TREE, slow, 1, 10) == pytest.approx(10 * 1e9 / 2e9, rel=0.01)


def test_an_exact_search_uses_every_core_for_one_query() -> None:
    exact = Database(1e6, 1000.0)
    assert search_s(exact, HOST, 1, 1) == pytest.approx(1e9 / 1e10)


def test_servers_share_the_work() -> None:
    one, four = search_s(TREE, HOST, 1, 8), search_s(TREE, HOST, 4, 8)
    assert one is not None
    assert four == pytest.approx(one / 4)


def test_a_database_must_fit_its_servers() -> None:
    large = Database(64e9, 96.0, 0.001, 4096)
    assert search_s(large, HOST, 6, 1) is None
    assert search_s(large, HOST, 7, 1) is not None


def test_queries_below_the_number_of_cores_are_free() -> None:
    wide = replace(HOST, memory_bytes_per_s=1e13)
    assert search_s(TREE, wide, 1, 10) == pytest.approx(search_s(TREE, wide, 1, 1))
