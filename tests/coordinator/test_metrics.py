"""The exposition: complete, separate per coordinator, few labels."""

from __future__ import annotations

import asyncio
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.metrics import CONTENT_TYPE, Metrics
from coordinator.types import Coverage, Timings, Usage
from ragschema.errors import InvalidInput, RagrigError


def samples(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        f"{s.name}{sorted(s.labels.items())}": s.value
        for family in families
        for s in family.samples
    }


def node_errors(metrics: Metrics) -> float:
    """Calls that failed, at whichever node."""
    found = samples(metrics)
    return sum(value for name, value in found.items() if "node_errors_total" in name)


def test_two_coordinators_do_not_mix() -> None:
    one, two = Metrics(), Metrics()
    one.observe_coverage(Coverage(0.5))
    assert samples(one)["ragrig_coverage_count[]"] == 1
    assert samples(two)["ragrig_coverage_count[]"] == 0
    assert CONTENT_TYPE.startswith("text/plain")


def test_stages_a_request_did_not_pass_are_left_out() -> None:
    metrics = Metrics()
    metrics.observe_timings(Timings(queue_ms=1, scan_ms=2, total_ms=4))
    found = samples(metrics)
    counts = {
        stage: found[f"ragrig_stage_seconds_count[('stage', '{stage}')]"]
        for stage in ("queue", "embed", "probe", "scan", "merge", "prompt", "first_token", "total")
    }
    assert {stage for stage, n in counts.items() if n} == {"queue", "scan", "total"}
    assert found["ragrig_stage_seconds_sum[('stage', 'scan')]"] == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (InvalidInput("x"), "error"),
        (KeyError("x"), "error"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
)
def test_every_outcome_is_counted_once(error: BaseException | None, outcome: str) -> None:
    metrics = Metrics()
    block = metrics.operation("search")
    block.__enter__()
    key = "ragrig_operations_inflight[('operation', 'search')]"
    assert samples(metrics)[key] == 1
    block.__exit__(type(error) if error else None, error, None)
    found = samples(metrics)
    assert found[key] == 0
    assert found[f"ragrig_operations_total[('operation', 'search'), ('outcome', '{outcome}')]"] == 1
    totals = [v for k, v in found.items() if k.startswith("ragrig_operations_total")]
    assert sum(totals) == 1


def test_an_unknown_error_type_makes_no_label_of_its_own() -> None:
    error = RagrigError("x")
    vars(error)["type_name"] = "made_up_by_a_caller"
    metrics = Metrics()
    metrics.node_failed("ret-0", error)
    text = metrics.render().decode()
    assert "made_up" not in text
    assert 'ragrig_node_errors_total{node="ret-0",type="internal"} 1.0' in text


def test_tokens_and_nodes() -> None:
    metrics = Metrics()
    metrics.observe_usage(Usage(prompt_tokens=3, completion_tokens=0, embed_tokens=2))
    metrics.node_up("ret-0", "retrieval", True)
    found = samples(metrics)
    assert found["ragrig_tokens_total[('kind', 'prompt')]"] == 3
    assert found["ragrig_tokens_total[('kind', 'embed')]"] == 2
    assert "ragrig_tokens_total[('kind', 'completion')]" not in found
    assert found["ragrig_node_up[('kind', 'retrieval'), ('node', 'ret-0')]"] == 1


def test_names_follow_the_conventions() -> None:
    for name in re.findall(r"^# TYPE (\S+)", Metrics().render().decode(), re.M):
        assert re.fullmatch(r"ragrig_[a-z_]+", name)
