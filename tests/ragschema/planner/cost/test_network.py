"""Messages to many nodes, and the slowest of them."""

from __future__ import annotations

import numpy as np
import pytest

from ragschema.errors import InvalidInput
from ragschema.planner.cost.network import (
    Latencies,
    Network,
    fan_out_s,
    message_s,
    shared_query_s,
)

_NET = Network(hop_s=1e-5, bytes_per_s=1e9)


def test_a_message_is_its_hop_and_its_bytes() -> None:
    assert message_s(_NET, 1e6) == pytest.approx(1e-5 + 1e-3)


@pytest.mark.parametrize(("nodes", "levels"), [(1, 0), (2, 1), (3, 2), (4, 2), (128, 7)])
def test_a_tree_has_a_level_per_doubling(nodes: int, levels: int) -> None:
    assert fan_out_s(_NET, nodes, 0.0) == pytest.approx(levels * 1e-5)


def test_the_slowest_of_many_agrees_with_drawing_them() -> None:
    spread = Latencies((0.0, 0.5, 0.9, 1.0), (1e-3, 2e-3, 4e-3, 9e-3))
    random = np.random.default_rng(5)
    drawn = np.interp(random.random((20_000, 16)), spread.shares, spread.seconds).max(axis=1)
    assert spread.slowest_of(16) == pytest.approx(float(np.median(drawn)), rel=0.01)
    assert spread.slowest_of(1) == spread.at(0.5)


def test_a_query_takes_the_slowest_node_and_the_network() -> None:
    spread = Latencies((0.0, 1.0), (1e-3, 1e-3))
    assert shared_query_s(_NET, spread, 8, 1e6) == pytest.approx(1e-3 + 3e-5 + 1e-3)


@pytest.mark.parametrize(
    ("shares", "seconds", "field"),
    [
        ((0.0, 1.0), (1.0,), "latency"),
        ((0.0,), (1.0,), "latency"),
        ((0.1, 1.0), (1.0, 2.0), "latency.shares"),
        ((0.0, 0.9), (1.0, 2.0), "latency.shares"),
        ((0.0, 0.5, 0.5, 1.0), (1.0, 1.0, 2.0, 2.0), "latency.shares"),
        ((0.0, 1.0), (2.0, 1.0), "latency.seconds"),
        ((0.0, 1.0), (0.0, 1.0), "latency.seconds"),
    ],
)
def test_impossible_distributions_are_refused(
    shares: tuple[float, ...], seconds: tuple[float, ...], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        Latencies(shares, seconds)
    assert caught.value.field == field


@pytest.mark.parametrize("field", ["hop_s", "bytes_per_s"])
def test_a_network_needs_positive_figures(field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Network(**{"hop_s": 1e-5, "bytes_per_s": 1e9, field: 0.0})
    assert caught.value.field == f"network.{field}"
