"""What the fidelity benchmark makes of its figures, and the rigs that it compares."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.fidelity_goodput import rigs
from bench.fidelity_plans import schema_of
from bench.fidelity_run import Work, put
from bench.fidelity_setup import VECTORS, Stand, base_rig
from bench.llm_model import DEC_S
from bench.plan_fidelity import errors_of, kendall_tau, pair
from ragschema.here import this_machine
from ragschema.profile import FORMAT, Profile
from ragschema.workload import ObjectivesConfig

WORK = Work(question=20, passages=4, output=48)


def point(ttft: float, tpot: float, tail: float) -> dict[str, dict[str, float]]:
    return {
        "ttft_p50_s": pair(1.0, 1.0 + ttft / 100),
        "tpot_p50_s": pair(0.1, 0.1 * (1 + tpot / 100)),
        "ttft_p99_s": pair(2.0, 2.0 * (1 + tail / 100)),
    }


def test_errors_are_over_all_points_and_tails_at_seventy_per_cent() -> None:
    full = {"qps": pair(4.0, 3.0)}
    cases = {
        "a": {"points": {"0.5": point(10, -4, 90), "0.7": point(-12, 6, -30), "full": full}},
        "b": {"points": {"0.7": point(2, 8, 20)}},
    }
    found = errors_of(cases)
    # 2, 4, 6, 8, 10, 12 and 25 per cent, the sign aside.
    assert found["median_abs_error_pct"] == pytest.approx(8)
    assert found["p90_abs_error_pct"] == pytest.approx(12 + 0.4 * 13)
    assert found["p99_ttft_max_error_pct"] == pytest.approx(30)
    assert found["operating_points"] == 4


@pytest.mark.parametrize(
    ("pairs", "tau"),
    [
        ([(1, 10), (2, 20), (3, 30)], 1.0),
        ([(1, 30), (2, 20), (3, 10)], -1.0),
        ([(1, 10), (2, 30), (3, 20)], pytest.approx(1 / 3)),
    ],
)
def test_rank_agreement(pairs: list[tuple[float, float]], tau: float) -> None:
    assert kendall_tau(pairs) == tau


def test_the_workload_that_is_planned_is_the_one_that_is_sent(tmp_path: Path) -> None:
    rig = base_rig(tmp_path, tmp_path / "dec-s")
    (tmp_path / "dec-s").mkdir()
    stand = Stand(tmp_path, rig, Profile(FORMAT, this_machine(), ()))
    wanted = ObjectivesConfig(ttft_p99_s=2.0)
    schema = schema_of(stand, WORK, 220, wanted)
    assert schema.database is not None
    assert schema.database.vectors == VECTORS.count
    assert schema.database.scanned_share == WORK.nprobe / VECTORS.nlist
    assert schema.objectives == wanted
    sent = put(WORK, 5, 1, rate_per_s=2.0)
    assert {request.output_tokens for request in sent.load.requests} == {48}
    assert dict(sent.sending.extra)["k"] == 4
    assert sent.load.times_s is not None
    assert put(WORK, 5, 1).load.times_s is None
    assert DEC_S["hidden_size"] == 512


def test_rigs_that_people_would_write_differ_in_what_is_compared(tmp_path: Path) -> None:
    made = rigs(base_rig(tmp_path, tmp_path / "dec-s"))
    assert len(made) == 6
    assert made["default"].llm_nodes[0].max_running == 1
    assert made["default"].coordinator.stages.generate.max_concurrent == 1
    assert made["batch-32"].llm_nodes[0].max_running == 32
    assert [node.roles for node in made["apart"].llm_nodes] == [("embed", "prefill"), ("decode",)]
    assert [node.threads for node in made["twins"].llm_nodes] == [1, 1]
    assert len({rig.llm_nodes for rig in made.values()}) == 6
