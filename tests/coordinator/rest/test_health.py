"""/healthz, /readyz, /metrics and /v1/status."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.replan.drift import Bounds, Out
from coordinator.replan.observe import Observed
from coordinator.replan.view import Told, View
from coordinator.rest.replan import ReplanReply
from coordinator.rest.replies import AliveReply, ReadyReply, StatusReply
from ragschema.errors import CorruptData
from tests.coordinator.rest.conftest import Rig


async def test_alive(rig: Rig) -> None:
    response = await rig.client.get("/healthz")
    assert AliveReply.model_validate_json(response.content).status == "ok"


async def test_ready_names_every_dependency_with_its_latency(rig: Rig) -> None:
    response = await rig.client.get("/readyz")
    assert response.status_code == 200
    reply = ReadyReply.model_validate_json(response.content)
    assert [d.name for d in reply.dependencies] == ["llm-0", "ret-0", "ret-1"]
    assert all(d.latency_ms == 0.5 for d in reply.dependencies)
    assert reply.error is None


@pytest.mark.parametrize(
    ("down", "words"),
    [("llm-0", "role embed"), ("ret-1", "group 1"), ("ret-0", "group 0")],
)
async def test_not_ready_while_a_needed_node_is_away(rig: Rig, down: str, words: str) -> None:
    rig.runtime.pool.down = {down}
    response = await rig.client.get("/readyz")
    assert response.status_code == 503
    reply = ReadyReply.model_validate_json(response.content)
    assert not reply.ready
    assert reply.error is not None
    assert words in reply.error.message
    assert [d.error for d in reply.dependencies if not d.ready] == ["connection refused"]
    rig.runtime.pool.down = set()
    assert (await rig.client.get("/readyz")).status_code == 200


async def test_not_ready_while_a_collection_cannot_be_opened(rig: Rig) -> None:
    rig.runtime.catalog.broken["docs"] = CorruptData("index/a.rag: checksum does not match")
    response = await rig.client.get("/readyz")
    assert response.status_code == 503
    assert "index/a.rag" in response.json()["error"]["message"]
    assert (await rig.client.get("/healthz")).status_code == 200


async def test_status_shows_whether_the_plan_still_fits(rig: Rig) -> None:
    def replan() -> ReplanReply | None:
        return StatusReply.model_validate_json(response.content).replan

    response = await rig.client.get("/v1/status")
    assert replan() is None
    out = Out("arrivals per s", 20.0, Bounds(3.0, 9.0))
    told = Told("2026-11-28T18:00:00+00:00", "batches", False, str(out), ("a 1 -> 2",), 2.0, 0.5,
                "plan-1.yaml", "--replan propose")  # fmt: skip
    observed = Observed(60.0, 20.0, 1200, 100.0, 50.0, 0.0, None, {"decode": 1.0})
    view = View("propose", "watching", "plan.yaml", observed, (out,), 1.5, told, None, 3, 1, 2)
    rig.runtime.replanner = SimpleNamespace(view=view)
    response = await rig.client.get("/v1/status")
    found = replan()
    assert found is not None
    assert (found.plannings, found.proposals, found.failures, found.changes) == (3, 1, 2, {})
    assert found.last is not None
    assert (found.last.gain, found.last.note) == (4.0, "--replan propose")
    assert found.out_of_range[0].high == 9.0


async def test_status_shows_nodes_groups_collections_and_jobs(rig: Rig) -> None:
    rig.runtime.pool.down = {"ret-1"}
    response = await rig.client.get("/v1/status")
    assert response.status_code == 200
    reply = StatusReply.model_validate_json(response.content)
    assert [(g.group, g.nodes, g.ready) for g in reply.shard_groups] == [
        (0, ["ret-0"], 1),
        (1, ["ret-1"], 0),
    ]
    assert reply.collections[0].name == "docs"
    assert reply.nodes[0].detail["running"] == 0
    assert not reply.ready
    assert reply.problems


async def test_metrics_count_requests_by_route_and_errors_by_type(rig: Rig) -> None:
    await rig.post("/v1/search", {"collection": "docs", "text": "keys"})
    await rig.post("/v1/search", {"collection": "nope", "text": "keys"})
    await rig.client.get("/v1/collections/docs/documents/guides/1")
    await rig.client.get("/some/odd/path")
    response = await rig.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }

    def count(route: str, method: str, status: str) -> float:
        labels = (("method", method), ("route", route), ("status", status))
        return samples["ragrig_http_requests_total", *labels]

    assert count("/v1/search", "POST", "200") == 1
    assert count("/v1/search", "POST", "404") == 1
    assert count("/v1/collections/{name}/documents/{document_id:path}", "GET", "200") == 1
    assert count("unmatched", "GET", "404") == 1
    assert samples["ragrig_http_errors_total", ("type", "not_found")] == 2
    assert samples["ragrig_http_request_seconds_count", ("route", "/v1/search")] == 2
    assert samples["ragrig_http_inflight",] >= 0
