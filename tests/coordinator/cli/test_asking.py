"""ask, search and status against a real HTTP server; how the rig is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.app import run
from coordinator.cli.conditions import parse_filters
from coordinator.nodes.device_work import device_details
from coordinator.nodes.engine_work import engine_detail
from ragschema.wire.llm_pb2 import DeviceShare, EngineStatus
from tests.coordinator.cli.helpers import (
    ANSWER,
    COLLECTION,
    FULL,
    HIT,
    claimed_rig,
    error_body,
    serving,
    sse,
)

QUERY = ("POST", "/v1/query")
SEARCH = ("POST", "/v1/search")
LIST = ("GET", "/v1/collections")
STATUS = ("GET", "/v1/status")
STREAM = sse(
    ("retrieval", {"hits": [HIT]}),
    ("token", {"text": "Rotate "}),
    ("token", {"text": "it [1]."}),
    ("citation", {**HIT, "number": 1, "cited": True}),
    ("done", ANSWER),
)


def test_ask_streams_then_cites(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({QUERY: (200, STREAM)}) as fake:
        argv = ["ask", "How?", "--collection", "docs", "-k", "3", "--url", fake.url]
        assert run([*argv, "--filter", "year>=2020", "--filter", "lang=en"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Rotate it [1].\n")
    assert "[1] Keys" in out
    assert "guides/keys.md [3:40]" in out
    assert "Operations > Keys" in out
    assert "\x1b[31m" not in out
    path, body, key = fake.seen[0]
    assert path == "/v1/query"
    assert key is None
    assert body == {
        "collection": "docs",
        "question": "How?",
        "k": 3,
        "filters": {"year": {"gte": 2020}, "lang": "en"},
        "max_tokens": 256,
        "stream": True,
    }


def test_ask_without_streaming_takes_the_only_collection(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = {**ANSWER, "coverage": {"fraction": 0.5, "missing": ["shard-1"]}}
    replies = {LIST: (200, {"collections": [COLLECTION]}), QUERY: (200, partial)}
    with serving(replies) as fake:
        monkeypatch.setenv("RAGRIG_URL", fake.url)
        assert run(["ask", "How?", "--no-stream"]) == 0
    out = capsys.readouterr().out
    assert "Rotate it [1]." in out
    assert "partial: 50% of the collection answered, without shard-1" in out
    assert fake.seen[1][1]["collection"] == "docs"


@pytest.mark.parametrize(
    ("names", "said"),
    [([], "there is no collection yet"), (["b", "a"], "there are 2 collections: a, b")],
)
def test_unnamed_collection_must_be_the_only_one(
    capsys: pytest.CaptureFixture[str], names: list[str], said: str
) -> None:
    found = {"collections": [{**COLLECTION, "name": name} for name in names]}
    with serving({LIST: (200, found)}) as fake:
        assert run(["search", "x", "--url", fake.url]) == 1
    assert said in capsys.readouterr().err


def test_error_of_the_server_is_shown_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    refused = (404, error_body("not_found", "there is no collection 'x'", "list them"))
    with serving({QUERY: refused}) as fake:
        assert run(["ask", "q", "--collection", "x", "--url", fake.url]) == 1
    assert capsys.readouterr().err == "error: there is no collection 'x'\nhint: list them\n"


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (sse(("token", {"text": "Half"}), ("error", error_body("overloaded", "busy"))), "busy"),
        (sse(("token", {"text": "Half"})), "the answer broke off"),
        (b"event: token\ndata: {nonsense\n\n", "not JSON"),
    ],
)
def test_stream_that_fails_midway(
    capsys: pytest.CaptureFixture[str], stream: bytes, said: str
) -> None:
    with serving({QUERY: (200, stream)}) as fake:
        assert run(["ask", "q", "--collection", "x", "--url", fake.url]) == 1
    assert said in capsys.readouterr().err


def test_a_server_of_another_kind_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({STATUS: (200, b"<html>")}) as fake:
        assert run(["status", "--url", fake.url]) == 1
    assert "is that a ragrig coordinator?" in capsys.readouterr().err


def test_search_shows_passages_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({SEARCH: (200, {"hits": [HIT], "coverage": FULL})}) as fake:
        argv = ["search", "rotate", "--collection", "docs", "--url", fake.url]
        assert run(argv) == 0
        assert "[1] Keys  score 0.750" in capsys.readouterr().out
        assert run([*argv, "--json"]) == 0
        assert '"chunk_id": "c1"' in capsys.readouterr().out
        fake.replies[SEARCH] = (200, {"hits": [], "coverage": FULL})
        assert run(argv) == 0
        assert "nothing found in docs" in capsys.readouterr().out


def test_a_wanted_recall_is_sent_only_when_given() -> None:
    replies = {SEARCH: (200, {"hits": [HIT], "coverage": FULL}), QUERY: (200, ANSWER)}
    with serving(replies) as fake:
        for command in (["search", "x"], ["ask", "x", "--no-stream"]):
            argv = [*command, "--collection", "docs", "--url", fake.url]
            assert run([*argv, "--recall", "0.95"]) == 0
            assert run(argv) == 0
            assert run([*argv, "--recall", "1.5"]) == 2
    assert [body.get("recall") for _, body, _ in fake.seen] == [0.95, None, 0.95, None]


def status_reply(ready: bool) -> dict[str, Any]:
    node = {
        "name": "ret-0",
        "kind": "retrieval",
        "address": "127.0.0.1:7",
        "ready": ready,
        "latency_ms": 0.4 if ready else None,
        "error": None if ready else "connection refused",
        "detail": {},
    }
    return {
        "name": "rig",
        "version": "0.1.0",
        "uptime_s": 5.0,
        "ready": ready,
        "problems": [] if ready else ["no node for shard 0"],
        "nodes": [node],
        "shard_groups": [{"group": 0, "nodes": ["ret-0"], "ready": int(ready)}],
        "collections": [COLLECTION, {**COLLECTION, "name": "bad", "error": "checksum"}],
        "jobs": [
            {
                "id": "j1",
                "collection": "docs",
                "state": "running",
                "phase": "embed",
                "done": 3,
                "total": 9,
            }
        ],
    }


@pytest.mark.parametrize(
    ("ready", "code", "parts"),
    [
        (True, 0, ["ready", "ret-0", "0.4 ms", "shard group 0", "docs", "checksum", "embed 3/9"]),
        (False, 1, ["not ready", "no node for shard 0", "away", "ret-0: connection refused"]),
    ],
)
def test_status_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], ready: bool, code: int, parts: list[str]
) -> None:
    with serving({STATUS: (200, status_reply(ready))}) as fake:
        assert run(["status", "--url", fake.url]) == code
        out = capsys.readouterr().out
        for part in parts:
            assert part in out
        assert run(["status", "--json", "--url", fake.url]) == code


def test_status_shows_the_sampled_recall(capsys: pytest.CaptureFixture[str]) -> None:
    indexed = {**COLLECTION, "index": "ivfpq", "nlist": 64}
    sampled = {**indexed, "recall": {**COLLECTION["recall"], "estimate": 0.97123}}
    broken = {**COLLECTION, "index": "ivfpq", "recall": None, "error": "checksum"}
    reply = {**status_reply(True), "collections": [indexed, sampled, broken]}
    with serving({STATUS: (200, reply)}) as fake:
        assert run(["status", "--url", fake.url]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("64 lists") == 2
    assert shown.count("recall 0.971") == 1


def test_status_shows_what_engines_do(capsys: pytest.CaptureFixture[str]) -> None:
    reply = status_reply(True)
    asked = EngineStatus(
        steps_total=4, computed_tokens_total=50, step_us_total=8000, running=3, waiting=2,
        preempted_total=7, kv_blocks_used=30, kv_blocks=120, block_tokens=16,
    )  # fmt: skip
    models = [{"name": "hf:m", "role": "generate"}, {"name": "hf:m", "role": "rewrite"}]
    lanes = [
        DeviceShare(device="cpu", roles="generate+rewrite", share=4, busy_us_total=75),
        DeviceShare(
            device="cpu", roles="embed", share=1, units_total=2, busy_us_total=25,
            wait_us_total=8400,
        ),
    ]  # fmt: skip
    detail = {
        "engine": engine_detail(asked), "models": models, "devices": device_details(lanes)
    }  # fmt: skip
    node = {**reply["nodes"][0], "name": "llm-0", "detail": detail}
    with serving({STATUS: (200, {**reply, "nodes": [*reply["nodes"], node]})}) as fake:
        assert run(["status", "--url", fake.url]) == 0
    shown = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "engines" in shown
    for part in ("3 running", "2 waiting", "25% of", "12.5 tokens", " 7 ", "hf:m (generate"):
        assert part in shown
    assert "devices" in shown
    for row in ("llm-0 cpu generate+rewrite 4 75% 0 -", "llm-0 cpu embed 1 25% 2 4.2 ms"):
        assert row in shown


def test_running_rig_is_found_by_its_data_dir_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("secret-word\n")
    text = f"coordinator: {{api_key_file: {tmp_path / 'key'}}}"
    Path("rig.yaml").write_text("data_dir: elsewhere\n")
    with serving({STATUS: (200, status_reply(True))}) as fake:
        with claimed_rig(tmp_path / "elsewhere", fake.url, text):
            assert run(["status", "--data-dir", "elsewhere"]) == 0
            assert run(["status", "-c", "rig.yaml"]) == 0
            assert run(["status"]) == 1
        assert run(["status", "-c", "rig.yaml"]) == 1
    assert [key for _, _, key in fake.seen] == ["Bearer secret-word"] * 2
    assert capsys.readouterr().err.count("no rig is running on") == 2


@pytest.mark.parametrize(
    ("conditions", "filters"),
    [
        (["lang=en"], {"lang": "en"}),
        (["lang=en", "lang=de"], {"lang": ["en", "de"]}),
        (["year>=2020", "year<2027"], {"year": {"gte": 2020, "lt": 2027}}),
        (["draft=false", 'id="7"', "x!=a=b"], {"draft": False, "id": "7", "x": {"ne": "a=b"}}),
        (["size>1.5", "note= "], {"size": {"gt": 1.5}, "note": ""}),
        ([], {}),
    ],
)
def test_conditions(conditions: list[str], filters: dict[str, Any]) -> None:
    assert parse_filters(conditions) == filters
