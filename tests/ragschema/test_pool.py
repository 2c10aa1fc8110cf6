"""Pool files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragschema.errors import InvalidInput, NotFound
from ragschema.planner.reproduce.rago import rago_pool
from ragschema.pool import load_pool, parse_pool

POOLS = Path(__file__).resolve().parents[2] / "examples" / "pools"
TEXT = """
version: 1
accelerator: xpu-c
host: rago-host
min_accelerators: 4
max_accelerators: 8
calibration: rago
"""


def test_the_shipped_pool_is_the_papers() -> None:
    assert load_pool(POOLS / "rago.yaml") == rago_pool()


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("version: 1", "version: 3", "version"),
        ("accelerator: xpu-c", "accelerator: xpu-q", "device"),
        ("accelerator: xpu-c", "accelerator: rago-host", "accelerator"),
        ("host: rago-host", "host: xpu-a", "host"),
        ("host: rago-host", "host: none.yaml", "device"),
        ("max_accelerators: 8", "max_accelerators: 0", "max_accelerators"),
        ("max_accelerators: 8", "max_accelerators: 2", "min_accelerators"),
        ("max_accelerators: 8", "max_accelerator: 8", "max_accelerator"),
        ("calibration: rago", "calibration: other", "calibration"),
        ("calibration: rago", "calibrated: rago", "calibrated"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_pool(TEXT.replace(old, new, 1), "pool.yaml")
    assert caught.value.field == field


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no pool file"):
        load_pool(tmp_path / "pool.yaml")


LISTED = """
version: 1
accelerators:
  - {device: h100-sxm, count: 4}
  - {device: l4, count: 8, price_per_h: 0.5}
retrieval:
  - {device: epyc-9654, count: 3}
network: {hop_s: 1.0e-5, bytes_per_s: 1.0e+10}
"""


def test_a_list_of_kinds() -> None:
    pool = parse_pool(LISTED, "pool.yaml")
    assert [(c.device.name, c.count) for c in pool.chips] == [("h100-sxm", 4), ("l4", 8)]
    assert pool.chips[1].device.price_per_h == 0.5
    assert (pool.min_chips, pool.max_chips, pool.chips_per_node) == (1, 12, None)
    assert parse_pool(LISTED + "max_accelerators: 6\n", "pool.yaml").max_chips == 6


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("count: 4", "count: 0", "accelerators.0.count"),
        ("count: 4", "number: 4", "accelerators.0.number"),
        ("device: l4", "device: l5", "device"),
        ("device: l4", "device: u250", "accelerators.1.device"),
        ("device: l4", "device: h100-sxm", "accelerators"),
        ("device: epyc-9654", "device: xpu-c", "retrieval.0.device"),
        ("hop_s: 1.0e-5", "hop_s: -1.0", "network.hop_s"),
        ("hop_s: 1.0e-5, ", "", "network.hop_s"),
        ("price_per_h: 0.5", "price_per_h: free", "accelerators.1.price_per_h"),
        ("network:", "host: rago-host\nnetwork:", "host"),
        ("network:", "accelerator: xpu-c\nnetwork:", "accelerators"),
        ("network:", "min_accelerators: 13\nnetwork:", "min_accelerators"),
    ],
)
def test_a_mistake_in_a_list_is_named(old: str, new: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_pool(LISTED.replace(old, new, 1), "pool.yaml")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("host: rago-host\n", "", "host"),
        ("max_accelerators: 8\n", "", "max_accelerators"),
        ("accelerator: xpu-c\n", "", "accelerator"),
        ("host: rago-host", "host: epyc-9654", "host"),
        ("calibration: rago", "retrieval: []", "retrieval"),
    ],
)
def test_a_single_kind_needs_its_host(old: str, new: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_pool(TEXT.replace(old, new, 1), "pool.yaml")
    assert caught.value.field == field


@pytest.mark.parametrize("path", sorted(POOLS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_pool_loads(path: Path) -> None:
    assert load_pool(path).max_chips >= 1
