"""The search benchmark: a small run of everything that needs no peer, and its arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import datasets
from bench.retrieval import code_figures, measure, refined_figures
from bench.retrieval_build import peer
from bench.retrieval_peers import Search
from bench.retrieval_plan import Plan, ScannBuild, Setting, quick
from bench.retrieval_race import Course, Point, best, frontier, promising, ratio
from ragschema.errors import Unavailable
from ragschema.types import F32, I64
from retrieval_node.native.loader import native


class Fake:
    """Finds what it is told, and counts the queries it was asked."""

    memory_bytes = 1 << 20

    def __init__(self, name: str, found: I64 | None = None) -> None:
        self.name = name
        self.found = found
        self.asked = 0
        self.settings: list[Setting] = []

    def at(self, setting: Setting) -> Search:
        self.settings.append(setting)

        def search(queries: F32) -> I64:
            self.asked += len(queries)
            assert self.found is not None
            return self.found[queries[:, 0].astype(np.int64)]

        return search


def point(name: str, recall: float, qps: float, rounds: tuple[float, ...] = ()) -> Point:
    """nprobe 8, batch 64."""
    timed = list(rounds) or [qps]
    return Point(Fake(name), Setting(8), 64, recall, trial_qps=qps, rounds_qps=timed)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    monkeypatch.setattr(datasets, "CACHE", tmp_path)
    return replace(
        quick(), rows=8000, dim=32, nlist=16, m=8, queries=128, probes=(8, 16), train_rows=4096
    )


def test_a_small_run_gives_every_figure_and_a_picture(small: Plan, tmp_path: Path) -> None:
    picture = tmp_path / "curve.svg"
    result = measure(small, ("ragrig", "ivfpq", "fastscan"), picture)
    json.dumps(result)
    assert result["missing"]["scann"] == "left out by --only"
    assert result["vs_scann"] is None
    assert {row["name"] for row in result["codes_qps"]} >= {"ivfpq", "fastscan-16x4"}
    if native() is None:
        assert "ragrig" in result["missing"]
        assert result["nprobe8_b64"] is None
    else:
        assert result["nprobe8_b64"] > 0
        assert result["equal_recall"]["nprobe8_b64"]["apart"] <= 0.002
    if picture.exists():
        assert picture.read_text().count("<svg") == 1


def test_indexes_are_built_once(small: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    measure(small, ("ivfpq",), None)
    assert "built ivfpq.faiss" in capsys.readouterr().err
    measure(small, ("ivfpq",), None)
    assert "built" not in capsys.readouterr().err


def test_a_peer_that_is_missing_is_named_with_a_remedy() -> None:
    with pytest.raises(Unavailable, match="make bench-peers") as caught:
        peer("no_such_library.part")
    assert caught.value.message == "no_such_library is not installed"


def test_a_trial_measures_recall_over_all_queries() -> None:
    truth = np.arange(40, dtype=np.int64).reshape(20, 2)
    found = truth.copy()
    found[:5, 1] = -1
    queries = np.repeat(np.arange(20, dtype=np.float32)[:, None], 4, axis=1)
    fake = Fake("x", found)
    tried = Course(Plan(rounds=2), queries, truth).trial(Point(fake, Setting(3), 8))
    assert tried.recall == pytest.approx(1 - 5 / 40)
    assert tried.trial_qps > 0
    assert np.array_equal(tried.found, found)


def test_every_round_times_every_setting_anew() -> None:
    queries = np.zeros((64, 4), dtype=np.float32)
    fake = Fake("x", np.zeros((1, 1), dtype=np.int64))
    points = [Point(fake, Setting(probes), 16) for probes in (1, 2, 3)]
    Course(Plan(rounds=4, window=32, pass_s=0.0), queries, np.zeros((64, 1))).race(points)  # type: ignore[arg-type]
    assert [len(p.rounds_qps) for p in points] == [4, 4, 4]
    for number in range(4):
        assert {s.probes for s in fake.settings[number * 3 : number * 3 + 3]} == {1, 2, 3}


def test_a_ratio_is_the_median_over_rounds() -> None:
    ours = point("ragrig", 1.0, 0, rounds=(10, 40, 90))
    theirs = point("ivfpq", 1.0, 0, rounds=(10, 10, 10))
    assert ratio(ours, theirs) == 4.0


def test_the_best_reaches_the_recall_and_is_the_fastest() -> None:
    points = [point("a", 0.94, 900), point("b", 0.95, 500), point("c", 0.99, 400)]
    found = best(points, 0.95)
    assert found is not None
    assert found.contestant.name == "b"
    assert best(points, 0.995) is None


def test_a_frontier_rises_in_speed_as_recall_falls() -> None:
    points = [point("a", 0.9, 100), point("b", 0.95, 50), point("c", 0.92, 40), point("d", 0.8, 90)]
    assert [p.contestant.name for p in frontier(points)] == ["b", "a"]


def test_settings_that_one_pass_may_have_misjudged_are_timed_again() -> None:
    points = [point("a", 0.95, 100), point("b", 0.94, 90), point("c", 0.93, 50)]
    assert [p.contestant.name for p in promising(points)] == ["a", "b"]


def _pair(ours: float, theirs: float) -> list[Point]:
    rows = np.zeros((4, 2), dtype=np.int64)
    made = [point("ragrig-float32", ours, 500), point("ivfpq", theirs, 100)]
    for each in made:
        each.found = rows
    return made


def test_codes_are_compared_at_equal_recall() -> None:
    missing: dict[str, str] = {}
    figures = code_figures(_pair(0.600, 0.601), missing)
    assert figures["nprobe8_b64"] == 5.0
    assert figures["equal_recall"]["nprobe8_b64"]["apart"] == pytest.approx(0.001)
    assert figures["nprobe32_b1"] is None
    assert missing == {}


def test_unequal_recall_gives_no_ratio() -> None:
    missing: dict[str, str] = {}
    assert code_figures(_pair(0.600, 0.603), missing)["nprobe8_b64"] is None
    assert missing == {"nprobe8_b64": "recall differs by 0.0030"}


def test_the_figure_without_reach_stands_beside() -> None:
    reaching = point("ragrig-float16", 0.95, 1000)
    reaching.setting = Setting(40, 50, 1.7)
    chosen = {
        "ragrig-float16": [reaching, point("ragrig-float16", 0.95, 800)],
        "fastscan-64x4": [point("fastscan-64x4", 0.95, 400)],
    }
    figures = refined_figures(chosen, 0.95)
    assert figures["vs_best_fastscan_refined"] == 2.5
    assert figures["vs_best_fastscan_refined_by_nprobe"] == 2.0
    assert figures["refined"]["ragrig-float16"]["setting"] == "40/50 reach 1.7"


def test_refined_figures_take_the_better_of_several_indexes() -> None:
    chosen: dict[str, Any] = {
        "ragrig-float32": [point("ragrig-float32", 0.96, 900), point("ragrig-float32", 0.94, 9000)],
        "ragrig-float16": [point("ragrig-float16", 0.95, 1000)],
        "fastscan-32x4": [point("fastscan-32x4", 0.95, 200)],
        "fastscan-64x4": [point("fastscan-64x4", 0.97, 400)],
        "scann": [point("scann-500-0.2", 0.90, 400)],
    }
    figures = refined_figures(chosen, 0.95)
    assert figures["vs_best_fastscan_refined"] == 2.5
    assert figures["vs_scann"] is None
    assert figures["refined"]["scann"] is None
    assert figures["refined"]["ragrig-float16"]["memory_mib"] == 1.0


def test_probes_of_a_tree_are_shares_of_its_leaves() -> None:
    few = Plan().grid(ScannBuild(500, 0.2).name)
    many = Plan().grid(ScannBuild(2000, float("nan")).name)
    assert max(s.probes for s in many) == 4 * max(s.probes for s in few)
    assert ScannBuild(2000, float("nan")).name == "scann-2000-none"
