"""What a caller may ask for, and the coverage of what comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coordinator.stages.check import check_coverage, check_search
from coordinator.types import Coverage, SearchSpec
from ragschema.errors import InsufficientCoverage, InvalidInput
from ragschema.storage.manifest import ChunkingConfig, Manifest
from ragschema.types import Metric


@pytest.mark.parametrize(("fraction", "wanted"), [(1.0, 1.0), (0.5, 0.5), (0.01, 0.0)])
def test_enough_is_enough(fraction: float, wanted: float) -> None:
    check_coverage(Coverage(fraction), wanted)


@pytest.mark.parametrize(("fraction", "wanted"), [(0.49, 0.5), (0.0, 0.0)])
def test_too_little_names_what_is_missing(fraction: float, wanted: float) -> None:
    with pytest.raises(InsufficientCoverage, match="shard-3") as refused:
        check_coverage(Coverage(fraction, ("shard-3",)), wanted)
    assert refused.value.field == "min_coverage"


def manifest() -> Manifest:
    return Manifest(
        2, "c", 1, "now", Metric.L2, 4, 1, None, ChunkingConfig(), None, (), None, 9, 9, 9
    )


def spec(**more: Any) -> SearchSpec:
    return SearchSpec("c", 5, vector=np.ones(4, np.float32), **more)


def test_nprobe_and_recall_together_are_refused_by_both_names() -> None:
    with pytest.raises(InvalidInput, match=r"nprobe .*recall") as refused:
        check_search(spec(nprobe=3, recall=0.9), manifest(), 100)
    assert refused.value.field == "recall"


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.01, float("nan")])
def test_a_recall_out_of_range_is_refused(recall: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_search(spec(recall=recall), manifest(), 100)
    assert refused.value.field == "recall"


@pytest.mark.parametrize("more", [{"recall": 1.0}, {"recall": 1e-9}, {"nprobe": 1}, {}])
def test_one_of_them_is_fine(more: dict[str, Any]) -> None:
    check_search(spec(**more), manifest(), 100)
