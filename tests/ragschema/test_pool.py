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
        ("max_accelerators: 8", "max_accelerator: 8", "max_accelerators"),
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
