"""``ragrig bench load`` as a user runs it, against a server that streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.app import run
from tests.coordinator.cli.helpers import FakeCoordinator, error_body, serving

CHUNKS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"content": "Rotate "}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": "it."}, "finish_reason": "stop"}],
     "timings": {"embed_ms": 1.5, "total_ms": 3.0}},
    {"choices": [], "usage": {"prompt_tokens": 70, "completion_tokens": 2}},
]  # fmt: skip
STREAM = "".join(f"data: {json.dumps(c)}\n\n" for c in CHUNKS).encode() + b"data: [DONE]\n\n"
CHAT = ("POST", "/v1/chat/completions")
MODELS = {"object": "list", "data": [{"id": "minilm"}, {"id": "ragrig/docs"}]}


@pytest.fixture
def endpoint() -> Iterator[FakeCoordinator]:
    with serving({CHAT: (200, STREAM), ("GET", "/v1/models"): (200, MODELS)}) as fake:
        yield fake


def bodies(fake: FakeCoordinator) -> list[dict[str, Any]]:
    return [body for path, body, _ in fake.seen if path == CHAT[1]]


def test_an_open_loop_with_everything_written(
    endpoint: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "bench", "load", "--url", endpoint.url, "--rate", "200", "--requests", "12",
        "--slo", "ttft=5000,e2e=9000", "--body", '{"k": 4}', "--output-tokens", "p50=8,p99=30",
        "--out", "report.json", "--raw", "raw.jsonl", "--plot", "load.svg", "--seed", "5",
    ]  # fmt: skip
    assert run(argv) == 0
    shown = capsys.readouterr().out
    for part in ("ttft", "itl", "goodput", "100.0% of planned", "12 of 12", "embed"):
        assert part in shown
    report = json.loads(Path("report.json").read_text())
    assert (report["format"], report["kind"], report["loop"]) == (1, "load", "open")
    assert report["model"] == "ragrig/docs", "a collection before other models"
    assert report["coverage"]["completed"] == 12
    assert report["tokens"] == {
        "output": 24, "output_counted": 12, "prompt_planned": 12 * 64, "prompt_counted": 12 * 70,
    }  # fmt: skip
    assert report["errors"] == {}
    assert set(report["metrics"]) <= set(report["definitions"])
    rows = [json.loads(line) for line in Path("raw.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(12))
    assert all(row["sent_s"] >= row["planned_s"] for row in rows)
    assert Path("load.svg").read_text().startswith("<?xml")
    sent = bodies(endpoint)
    assert len(sent) == 13, "one to warm up"
    assert all(body["k"] == 4 and 1 <= body["max_tokens"] <= 30 for body in sent)


def test_the_same_seed_sends_the_same(endpoint: FakeCoordinator) -> None:
    argv = ["bench", "load", "--url", endpoint.url, "--concurrency", "1", "--requests", "4",
            "--warmup", "0"]  # fmt: skip
    for seed in ("3", "3", "4"):
        assert run([*argv, "--seed", seed]) == 0
    sent = bodies(endpoint)
    assert sent[:4] == sent[4:8] != sent[8:]


def test_a_closed_loop_as_json(
    endpoint: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("q.txt").write_text("How?\nWhy?\n")
    argv = ["bench", "load", "--url", endpoint.url, "--concurrency", "3", "--requests", "9",
            "--questions", "q.txt", "--model", "m", "--json"]  # fmt: skip
    assert run(argv) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["loop"], report["offered_per_s"]) == ("closed", None)
    assert report["goodput_per_s"] is None
    asked = {body["messages"][0]["content"] for body in bodies(endpoint)}
    assert asked == {"How?", "Why?"}


@pytest.mark.parametrize(
    ("model", "words"), [("ragrig/docs", [3, 3]), ("gpt", [30, 30])]
)  # fmt: skip
def test_a_ragpulse_trace_asks_a_rig_and_prompts_a_model(
    endpoint: FakeCoordinator, model: str, words: list[int]
) -> None:
    row = {"timestamp": "0", "input_length": 30, "output_length": 4,
           "hash_ids": {"passages_ids": [1], "user_input": [9]}}  # fmt: skip
    later = {**row, "timestamp": "1000"}
    Path("trace.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(later)}\n")
    Path("passages.jsonl").write_text('{"passage_id": 1, "token_length": 27}')
    Path("user_input.jsonl").write_text('{"user_input_id": 9, "token_length": 3}')
    argv = ["bench", "load", "--url", endpoint.url, "--trace", "trace.jsonl", "--model", model,
            "--speed", "10000", "--warmup", "0"]  # fmt: skip
    assert run(argv) == 0
    sent = bodies(endpoint)
    assert [len(body["messages"][0]["content"].split()) for body in sent] == words
    assert [body["max_tokens"] for body in sent] == [4, 4]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "--rate, --schema, --trace or --concurrency"),
        (["--rate", "0"], "--rate 0 is not above 0"),
        (["--rate", "nan"], "--rate nan is not above 0"),
        (["--rate", "1", "--concurrency", "2"], "exclude each other"),
        (["--rate", "1", "--speed", "2"], "exclude each other"),
        (["--concurrency", "1", "--speed", "2"], "exclude each other"),
        (["--trace", "t.csv", "--arrivals", "bursts"], "exclude each other"),
        (["--rate", "1", "--arrivals", "bursts"], "bursts arrivals need size"),
        (["--rate", "1", "--cv", "2"], "poisson arrivals have no cv"),
        (["--rate", "1", "--slo", "ttff=3"], "unknown 'ttff'"),
        (["--rate", "1", "--slo", "ttft=x"], "could not convert"),
        (["--rate", "1", "--slo", "ttft=-1"], "not above 0"),
        (["--rate", "1", "--prompt-tokens", "p50=3"], "lacks p50 or p99"),
        (["--rate", "1", "--prompt-tokens", "many"], "no number of tokens"),
        (["--rate", "1", "--output-tokens", "p50=9,p99=3"], "p99 is 3, and p50 is 9"),
        (["--rate", "1", "--body", "[]"], "no JSON object"),
        (["--rate", "1", "--body", "{"], "not JSON"),
        (["--rate", "1", "--plot", "x.pdf"], "cannot draw x.pdf"),
        (["--rate", "1", "--questions", "none.txt"], "no questions file"),
        (["--trace", "none.jsonl"], "no trace none.jsonl"),
        (["--trace", "t.csv", "--columns", "a,b"], "three --columns"),
    ],
)
def test_wrong_options_are_named(
    endpoint: FakeCoordinator,
    options: list[str],
    part: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("t.csv").write_text("a,b,c\n1,2,3\n")
    assert run(["bench", "load", "--url", endpoint.url, *options]) == 1
    assert part in capsys.readouterr().err
    assert bodies(endpoint) == []


def test_an_endpoint_that_answers_nothing_fails_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    full = (429, error_body("overloaded", "the queue is full"))
    with serving({CHAT: full}) as fake:
        argv = ["bench", "load", "--url", fake.url, "--model", "m", "--rate", "99",
                "--requests", "3"]  # fmt: skip
        assert run(argv) == 1
        assert "http 429: the queue is full" in capsys.readouterr().err
        assert run([*argv, "--warmup", "0"]) == 0
        shown = capsys.readouterr().out
    assert "http 429" in shown
    assert "0.0%, 0 of 3" in shown


def test_an_endpoint_without_models(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({("GET", "/v1/models"): (200, {"data": []})}) as fake:
        assert run(["bench", "load", "--url", fake.url, "--rate", "1"]) == 1
    assert "no models" in capsys.readouterr().err


SCHEMA = """
version: 1
name: shop
generator: {model: llama-3-8b}
lengths: {question: 12, prompt: 40, output: 9}
objectives: {ttft_s: 9, ttft_p99_s: 8, e2e_p99_s: 9, qps: 400}
arrivals: {process: bursts, size: 4}
classes:
  - {name: short, share: 0.5, lengths: {prompt: 20, output: 3}}
  - {name: long, share: 0.5}
"""


@pytest.mark.parametrize(("model", "words"), [("ragrig/docs", {12}), ("gpt", {20, 40})])
def test_a_schema_is_replayed(endpoint: FakeCoordinator, model: str, words: set[int]) -> None:
    Path("shop.yaml").write_text(SCHEMA)
    argv = ["bench", "load", "--url", endpoint.url, "--schema", "shop.yaml", "--model", model,
            "--requests", "24", "--warmup", "0", "--out", "r.json",
            "--raw", "raw.jsonl"]  # fmt: skip
    assert run(argv) == 0
    sent = bodies(endpoint)
    assert {len(body["messages"][0]["content"].split()) for body in sent} == words
    assert {body["max_tokens"] for body in sent} == {3, 9}
    report = json.loads(Path("r.json").read_text())
    assert report["goodput_share"] == 1, "the schema's objectives"
    rows = [json.loads(line) for line in Path("raw.jsonl").read_text().splitlines()]
    planned = sorted({row["planned_s"] for row in rows})
    assert len(planned) == 6, "bursts of four"
    assert planned[1] - planned[0] == pytest.approx(4 / 400)


def test_options_go_before_a_schema(
    endpoint: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("shop.yaml").write_text(SCHEMA.replace(", qps: 400", ""))
    argv = ["bench", "load", "--url", endpoint.url, "--schema", "shop.yaml", "--requests", "3"]
    assert run(argv) == 1
    assert "no objectives.qps" in capsys.readouterr().err
    assert run([*argv, "--rate", "500", "--prompt-tokens", "7", "--output-tokens", "5"]) == 0
    sent = bodies(endpoint)
    assert {len(body["messages"][0]["content"].split()) for body in sent} == {7}
    assert {body["max_tokens"] for body in sent} == {5}
    assert run([*argv, "--concurrency", "2", "--slo", "ttft=1000"]) == 0
    assert run([*argv, "--trace", "t.csv"]) == 1
