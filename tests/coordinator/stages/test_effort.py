"""A request's wish becomes settings of its collection's index."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.stages.effort import Effort, Planner
from coordinator.types import SearchSpec
from ragschema.errors import IncompatibleRequest
from ragschema.storage.manifest import ChunkingConfig, CurvePoint, FileRef, IndexRef, Manifest
from ragschema.types import Metric

CURVE = (
    CurvePoint(1, 2, 0.50, 100),
    CurvePoint(9, 2, 0.90, 900),
    CurvePoint(16, 2, 0.96, 1600),
)


def planner(
    curve: tuple[CurvePoint, ...] = CURVE, refine: int | None = 2, recall: float | None = None
) -> Planner:
    index = IndexRef(FileRef("index/a.rag", 1, 1), 16, 2, 4, refine, curve=curve)
    return Planner(manifest(index, recall))


def manifest(index: IndexRef | None, recall: float | None = None) -> Manifest:
    return Manifest(
        2, "c", 1, "now", Metric.L2, 4, 1, None, ChunkingConfig(), index, (), None, 9, 9, 9, recall
    )


def spec(k: int = 5, **more: Any) -> SearchSpec:
    return SearchSpec("c", k, text="x", **more)


@pytest.mark.parametrize(("asked", "scanned"), [(None, 4), (1, 1), (16, 16), (500, 16)])
def test_lists_are_bounded_by_those_there_are(asked: int | None, scanned: int) -> None:
    effort = planner().effort(spec(nprobe=asked))
    assert effort.nprobe == scanned
    assert effort.recall_reached is None


def test_the_index_s_own_settings_are_told_what_they_reach() -> None:
    effort = planner().effort(spec())
    assert effort.recall_expected == pytest.approx(0.65)
    assert planner(()).effort(spec()).recall_expected is None


@pytest.mark.parametrize(("k", "candidates"), [(1, 8), (10, 80), (1000, 4096)])
def test_refinement_is_bounded_by_what_a_node_takes(k: int, candidates: int) -> None:
    assert planner(refine=8).effort(spec(k)).refine_k == candidates
    assert planner(refine=None).effort(spec(k)).refine_k is None


def test_a_wanted_recall_sets_lists_and_refinement() -> None:
    assert planner().effort(spec(recall=0.9)) == Effort(9, 10, 0.9, True)


def test_a_recall_out_of_reach_gives_the_best() -> None:
    assert planner().effort(spec(recall=0.99)) == Effort(16, 10, 0.96, False)


def test_a_collection_s_recall_holds_unless_the_request_says_otherwise() -> None:
    default = planner(recall=0.9)
    assert default.effort(spec()).nprobe == 9
    assert default.effort(spec(recall=0.96)).nprobe == 16
    assert default.effort(spec(nprobe=2)).nprobe == 2
    assert default.effort(spec(nprobe=2)).recall_reached is None


def test_no_curve_means_no_recall() -> None:
    with pytest.raises(IncompatibleRequest) as refused:
        planner(()).effort(spec(recall=0.9))
    assert refused.value.field == "recall"
    assert refused.value.hint is not None
    assert "ragrig index tune" in refused.value.hint


def test_a_default_without_a_curve_does_not_stop_searches() -> None:
    effort = planner((), recall=0.9).effort(spec())
    assert (effort.nprobe, effort.recall_expected, effort.recall_reached) == (4, None, False)


def test_an_exact_collection_reaches_everything() -> None:
    exact = Planner(manifest(None))
    assert exact.effort(spec(nprobe=3)) == Effort(None, None, 1.0, None)
    assert exact.effort(spec(recall=1.0)) == Effort(None, None, 1.0, True)
    assert Planner(manifest(None, 0.5)).effort(spec()).recall_reached is True
