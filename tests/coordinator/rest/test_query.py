"""POST /v1/query: the same answer whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coordinator.rest.replies import QueryReply, SearchReply
from coordinator.types import QuerySpec
from ragschema import errors as e
from ragschema.types import Sampling
from tests.coordinator.rest.conftest import Rig

QUESTION = {"collection": "docs", "question": "How are keys rotated?", "k": 2}


def events_of(text: str) -> list[tuple[str, Any]]:
    """The typed events of a stream; fails on anything that is not one."""
    found = []
    for block in text.split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_an_answer_comes_with_citations(rig: Rig) -> None:
    response = await rig.post("/v1/query", QUESTION)
    assert response.status_code == 200
    reply = QueryReply.model_validate_json(response.content)
    assert reply.answer == "Keys are rotated weekly [1]."
    assert [(c.number, c.cited, c.document_id) for c in reply.citations] == [(1, True, "guides/0")]
    assert reply.usage.completion_tokens == 4
    assert reply.timings.first_token_ms == 1.0
    assert reply.retrieval.lists_probed == 12
    assert rig.runtime.pipeline.running == 0


async def test_a_wanted_recall_reaches_the_pipeline(rig: Rig) -> None:
    assert (await rig.post("/v1/query", {**QUESTION, "recall": 0.9})).status_code == 200
    spec = rig.runtime.pipeline.specs[-1]
    assert isinstance(spec, QuerySpec)
    assert spec.search.recall == 0.9
    both = {**QUESTION, "recall": 0.9, "nprobe": 1}
    assert (await rig.post("/v1/query", both)).status_code == 422


async def test_generation_options_reach_the_pipeline(rig: Rig) -> None:
    options = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["END"]}
    await rig.post("/v1/query", {**QUESTION, **options})
    spec = rig.runtime.pipeline.specs[-1]
    assert isinstance(spec, QuerySpec)
    assert spec.sampling == Sampling(9, 0.5, 0.9, 3, ("END",))
    assert spec.search.text == spec.question == QUESTION["question"]


async def test_a_stream_holds_the_same_content_in_order(rig: Rig) -> None:
    trace = {"x-trace-id": "0123456789abcdef"}
    whole = (await rig.post("/v1/query", QUESTION, headers=trace)).json()
    response = await rig.post("/v1/query", {**QUESTION, "stream": True}, headers=trace)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-trace-id"] == trace["x-trace-id"]
    events = events_of(response.text)
    assert [name for name, _ in events] == ["retrieval", *["token"] * 4, "citation", "done"]
    assert "".join(data["text"] for name, data in events if name == "token") == whole["answer"]
    assert [data for name, data in events if name == "citation"] == whole["citations"]
    assert events[-1][1] == whole
    retrieval = SearchReply.model_validate(events[0][1])
    assert len(retrieval.hits) == 2
    assert events[0][1]["retrieval"] == whole["retrieval"]
    assert retrieval.coverage.fraction == whole["coverage"]["fraction"]


async def test_text_with_line_breaks_stays_one_event(rig: Rig) -> None:
    rig.runtime.pipeline.words = ("one\n\ntwo\r\n", "event: done\n")
    response = await rig.post("/v1/query", {**QUESTION, "stream": True})
    tokens = [data["text"] for name, data in events_of(response.text) if name == "token"]
    assert tokens == ["one\n\ntwo\r\n", "event: done\n"]


async def test_an_error_before_the_first_event_has_its_own_status(rig: Rig) -> None:
    body = {**QUESTION, "collection": "nope", "stream": True}
    response = await rig.post("/v1/query", body)
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found"


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (e.UpstreamError("the generator left"), "upstream_error"),
        (RuntimeError("secret detail"), "internal"),
    ],
)
async def test_a_late_error_is_the_last_event(rig: Rig, late: Exception, expected: str) -> None:
    rig.runtime.pipeline.late_error = late
    response = await rig.post("/v1/query", {**QUESTION, "stream": True})
    assert response.status_code == 200
    events = events_of(response.text)
    assert [name for name, _ in events] == ["retrieval", *["token"] * 4, "error"]
    error = events[-1][1]["error"]
    assert error["type"] == expected
    assert error["trace_id"] == response.headers["x-trace-id"]
    assert "secret detail" not in response.text
    assert rig.runtime.pipeline.running == 0


async def test_a_late_error_of_a_whole_answer_has_a_status(rig: Rig) -> None:
    rig.runtime.pipeline.late_error = e.UpstreamError("the generator left")
    assert (await rig.post("/v1/query", QUESTION)).status_code == 502


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"question": None}, "question"),
        ({"question": "x" * 40_000}, "question"),
        ({"stream": 1}, "stream"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop.0"),
        ({"stop": "END"}, "stop"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_wrong_options_are_refused_by_their_field(
    rig: Rig, change: dict[str, Any], field: str
) -> None:
    response = await rig.post("/v1/query", {**QUESTION, **change})
    assert response.status_code == 422
    assert response.json()["error"]["field"] == field


async def test_a_missing_field_is_named(rig: Rig) -> None:
    response = await rig.post("/v1/query", {"collection": "docs"})
    assert response.json()["error"]["field"] == "question"
