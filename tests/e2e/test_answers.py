"""A question over REST: answer, citations, coverage, timings, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.corpus import FOODS, ROOMS
from tests.e2e.rigs import RunningRig, finish_job, wait_for


@pytest.fixture
def client(appliance: RunningRig) -> Iterator[httpx.Client]:
    with appliance.client() as opened:
        yield opened


def ask(client: httpx.Client, **body: Any) -> dict[str, Any]:
    reply: dict[str, Any] = client.post("/v1/query", json=body).raise_for_status().json()
    return reply


def documents_of(found: dict[str, Any]) -> list[str]:
    return [hit["document_id"] for hit in found["hits"]]


def test_the_collections_are_what_they_say(client: httpx.Client) -> None:
    zoo = client.get("/v1/collections/zoo").json()
    sightings = client.get("/v1/collections/sightings").json()
    assert (zoo["index"], zoo["documents"]) == ("exact", len(FOODS))
    assert (sightings["index"], sightings["rows"]) == ("ivfpq", len(FOODS) * len(ROOMS))
    assert sightings["num_shards"] == 2


@pytest.mark.parametrize("animal", ["otter", "walrus", "pangolin", "panda"])
def test_an_answer_quotes_and_cites_its_source(client: httpx.Client, animal: str) -> None:
    reply = ask(client, collection="zoo", question=f"What does the {animal} eat?", k=5)
    assert FOODS[animal] in reply["answer"]
    cited = [c for c in reply["citations"] if c["cited"]]
    assert f"zoo/{animal}" in [c["document_id"] for c in cited]
    assert reply["coverage"] == {"fraction": 1.0, "missing": []}


def test_citations_point_into_their_documents(client: httpx.Client) -> None:
    reply = ask(client, collection="zoo", question="What does the otter eat?", k=3)
    for citation in reply["citations"]:
        assert citation["text"]
        assert citation["end"] - citation["start"] == len(citation["text"])
        document = client.get(f"/v1/collections/zoo/documents/{citation['document_id']}")
        assert document.status_code == 200
    numbers = [c["number"] for c in reply["citations"]]
    assert sorted(numbers) == sorted(set(numbers))
    assert all(f"[{c['number']}]" in reply["answer"] for c in reply["citations"] if c["cited"])


def test_timings_and_usage_are_filled_in(client: httpx.Client) -> None:
    reply = ask(client, collection="sightings", question="Where is the otter?", k=5)
    stages = ["embed_ms", "probe_ms", "scan_ms", "merge_ms", "prompt_ms", "first_token_ms"]
    assert all(reply["timings"][stage] >= 0 for stage in stages)
    assert reply["timings"]["total_ms"] >= reply["timings"]["first_token_ms"] > 0
    assert reply["usage"]["completion_tokens"] > 0


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The typed events of a stream; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        if lines:
            kind, data = (line.partition(": ")[2] for line in lines)
            found.append((kind, json.loads(data)))
    return found


def test_a_stream_says_the_same_as_the_whole_answer(client: httpx.Client) -> None:
    body = {"collection": "zoo", "question": "What does the beaver eat?", "k": 4}
    whole = ask(client, **body)
    streamed = client.post("/v1/query", json={**body, "stream": True}).raise_for_status()
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = events_of(streamed.text)
    kinds = [kind for kind, _ in events]
    assert kinds[0] == "retrieval"
    assert kinds[-1] == "done"
    assert set(kinds) == {"retrieval", "token", "citation", "done"}
    done = events[-1][1]
    assert done["answer"] == whole["answer"]
    assert "".join(data["text"] for kind, data in events if kind == "token") == whole["answer"]
    assert done["citations"] == whole["citations"]
    assert done["usage"] == whole["usage"]


def test_text_and_vector_find_the_same(client: httpx.Client) -> None:
    text = "Somebody saw a lynx asleep in the library."
    vector = client.post("/v1/embeddings", json={"input": text, "purpose": "query"}).json()
    body = {"collection": "sightings", "k": 10}
    by_text = client.post("/v1/search", json={**body, "text": text}).json()
    by_vector = client.post(
        "/v1/search", json={**body, "vector": vector["data"][0]["embedding"]}
    ).json()
    assert documents_of(by_text)[0] == "sighting-lynx-library"
    assert documents_of(by_text) == documents_of(by_vector)


def test_filters_hold_for_every_hit(client: httpx.Client) -> None:
    body = {
        "collection": "sightings",
        "text": "a wolf",
        "k": 20,
        "filters": {"room": "harbour", "year": {"gte": 2010}},
    }
    found = client.post("/v1/search", json=body).raise_for_status().json()
    assert len(found["hits"]) == 20
    for hit in found["hits"]:
        assert hit["metadata"]["room"] == "harbour"
        assert hit["metadata"]["year"] >= 2010


def test_a_deleted_document_is_not_found_again(client: httpx.Client) -> None:
    client.post("/v1/collections", json={"name": "deletes"}).raise_for_status()
    texts = {"keep": "The anchor is kept in the dry dock.", "drop": "The anchor was lost at sea."}
    upload = {"documents": [{"id": name, "text": text} for name, text in texts.items()]}
    job = client.post("/v1/collections/deletes/documents", json=upload).raise_for_status().json()
    assert finish_job(client, job)["state"] == "done"
    search = {"collection": "deletes", "text": "anchor", "k": 5}
    assert set(documents_of(client.post("/v1/search", json=search).json())) == set(texts)
    client.delete("/v1/collections/deletes/documents/drop").raise_for_status()
    after = client.post("/v1/search", json=search).raise_for_status().json()
    assert documents_of(after) == ["keep"]
    assert client.get("/v1/collections/deletes/documents/drop").status_code == 404
    assert client.delete("/v1/collections/deletes/documents/drop").status_code == 404


def test_a_replaced_document_answers_with_its_new_text(client: httpx.Client) -> None:
    client.post("/v1/collections", json={"name": "replaced"}).raise_for_status()
    path = "/v1/collections/replaced/documents/guides/port"
    for text in ("The service listens on port 1111.", "The service listens on port 2222."):
        job = client.put(path, json={"text": text}).raise_for_status().json()
        assert finish_job(client, job)["state"] == "done"
    found = client.post("/v1/search", json={"collection": "replaced", "text": "port"}).json()
    assert ["2222" in hit["text"] for hit in found["hits"]] == [True]
    assert client.get("/v1/collections/replaced").json()["documents"] == 1


def test_an_uploaded_file_is_searchable(client: httpx.Client) -> None:
    client.post("/v1/collections", json={"name": "files"}).raise_for_status()
    page = b"<html><body><h1>Doors</h1><p>The red door sticks.</p></body></html>"
    files = [
        ("files", ("guide.md", b"# Keys\n\nTurn the copper key twice.", "text/markdown")),
        ("files", ("page.html", page, "text/html")),
    ]
    job = client.post("/v1/collections/files/documents", files=files).raise_for_status().json()
    ended = finish_job(client, job)
    assert ended["state"] == "done", ended
    found = client.post("/v1/search", json={"collection": "files", "text": "copper key"}).json()
    assert "copper key" in found["hits"][0]["text"]


def test_the_commands_find_the_running_rig(appliance: RunningRig) -> None:
    config = ("-c", str(appliance.config))
    asked = appliance.command("ask", "What does the heron eat?", "--collection", "zoo", *config)
    assert asked.returncode == 0, asked.stderr
    assert FOODS["heron"] in asked.stdout
    found = appliance.command("search", "heron food", "--collection", "zoo", *config)
    assert found.returncode == 0, found.stderr
    assert "heron" in found.stdout
    status = appliance.command("status", *config)
    assert status.returncode == 0, status.stderr
    assert all(word in status.stdout for word in ("ret-0", "ret-1", "llm-0", "sightings"))


def test_ingesting_again_changes_nothing(appliance: RunningRig, client: httpx.Client) -> None:
    before = client.get("/v1/collections/sightings").json()["generation"]
    source = str(appliance.folder / "sightings.jsonl")
    done = appliance.command(
        "ingest", source, "--collection", "sightings", "-c", str(appliance.config)
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: client.get("/readyz").status_code == 200)
    assert client.get("/v1/collections/sightings").json()["generation"] == before


def test_batches_are_seen_in_the_metrics(client: httpx.Client) -> None:
    text = client.get("/metrics").raise_for_status().text
    for name in ("ragrig_stage_seconds", "ragrig_batch_requests", "ragrig_coverage"):
        assert name in text
