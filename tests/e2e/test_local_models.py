"""Local checkpoints end to end, and clients that leave while the model writes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from ragschema.wire import llm_pb2, llm_pb2_grpc
from tests.e2e.rigs import RunningRig, wait_for

LONG = {"collection": "notes", "question": "the cat", "max_tokens": 6000, "k": 2}


@pytest.fixture
def client(babbler: RunningRig) -> Iterator[httpx.Client]:
    with babbler.client() as opened:
        yield opened


def status_of(rig: RunningRig) -> llm_pb2.LlmStatusReply:
    """Straight from the LLM node."""
    with grpc.insecure_channel(rig.node("hf")["address"]) as channel:
        stub = llm_pb2_grpc.LlmNodeStub(channel)
        reply: llm_pb2.LlmStatusReply = stub.Status(llm_pb2.LlmStatusRequest(), timeout=20)
        return reply


def is_idle(rig: RunningRig) -> bool:
    status = status_of(rig)
    return status.running == 0 and status.waiting == 0


def test_a_local_checkpoint_answers(client: httpx.Client) -> None:
    body = {**LONG, "max_tokens": 12}
    first = client.post("/v1/query", json=body).raise_for_status().json()
    assert first["usage"]["completion_tokens"] == 12
    assert first["finish_reason"] == "length"
    assert first["model"].startswith("hf:")
    assert len(first["citations"]) == 2
    assert not any(
        c["cited"] for c in first["citations"] if f"[{c['number']}]" not in first["answer"]
    )
    again = client.post("/v1/query", json=body).raise_for_status().json()
    assert again["answer"] == first["answer"]  # temperature 0 is greedy


def test_sampling_obeys_its_seed(client: httpx.Client) -> None:
    def answer(seed: int) -> str:
        body = {**LONG, "max_tokens": 24, "temperature": 1.0, "seed": seed}
        return str(client.post("/v1/query", json=body).raise_for_status().json()["answer"])

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_several_answers_and_their_log_probabilities(client: httpx.Client) -> None:
    body = {
        "model": "ragrig/notes", "messages": [{"role": "user", "content": "the cat"}], "k": 2,
        "n": 2, "max_tokens": 16, "min_tokens": 16, "temperature": 1.2, "seed": 5, "top_k": 50,
        "repetition_penalty": 1.1, "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    first, second = reply["choices"]
    assert first["message"]["content"] != second["message"]["content"]
    assert reply["usage"]["completion_tokens"] == 32
    for choice in (first, second):
        told = choice["logprobs"]["content"]
        data = bytes(byte for one in told for byte in one["bytes"])
        assert data.decode(errors="replace") == choice["message"]["content"]
        assert all(len(one["top_logprobs"]) == 2 for one in told)
    wrong = client.post("/v1/chat/completions", json={**body, "stop_token_ids": [10**6]})
    assert wrong.status_code == 422
    assert wrong.json()["error"]["field"] == "stop_token_ids"


def test_a_streamed_answer_is_the_whole_one(client: httpx.Client) -> None:
    body = {**LONG, "max_tokens": 40}
    whole = client.post("/v1/query", json=body).raise_for_status().json()["answer"]
    with client.stream("POST", "/v1/query", json={**body, "stream": True}) as reply:
        lines = list(reply.iter_lines())
    tokens = [
        json.loads(data.partition(": ")[2])["text"]
        for kind, data in itertools.pairwise(lines)
        if kind == "event: token"
    ]
    assert len(tokens) > 1
    assert "".join(tokens) == whole


def start_stream(client: httpx.Client, body: dict[str, Any]) -> None:
    """Reads until the first token and closes the connection."""
    with client.stream("POST", "/v1/query", json={**body, "stream": True}) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            if line == "event: token":
                return
    pytest.fail("the stream ended before its first token")


def test_a_client_that_leaves_mid_stream_stops_the_model(
    babbler: RunningRig, client: httpx.Client
) -> None:
    before = status_of(babbler)
    for _ in range(3):
        start_stream(client, LONG)
    wait_for(lambda: is_idle(babbler), 30, babbler.logs)
    after = status_of(babbler)
    assert after.cancelled_total - before.cancelled_total == 3
    assert after.tokens_total - before.tokens_total < 3 * LONG["max_tokens"]  # type: ignore[operator]


def test_a_client_that_leaves_before_the_answer_stops_the_model(
    babbler: RunningRig, client: httpx.Client
) -> None:
    before = status_of(babbler).cancelled_total
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/query", json=LONG, timeout=1.5)
    wait_for(lambda: is_idle(babbler), 30, babbler.logs)
    assert status_of(babbler).cancelled_total == before + 1


def test_a_deadline_ends_the_model_s_work(babbler: RunningRig, client: httpx.Client) -> None:
    reply = client.post("/v1/query", json={**LONG, "timeout_ms": 1000})
    assert reply.status_code == 504
    assert reply.json()["error"]["type"] == "deadline_exceeded"
    wait_for(lambda: is_idle(babbler), 30, babbler.logs)


def test_two_rigs_do_not_disturb_each_other(appliance: RunningRig, babbler: RunningRig) -> None:
    """Both run at this moment; each knows its own nodes and collections alone."""
    names = {}
    for rig in (appliance, babbler):
        with rig.client() as client:
            status = client.get("/v1/status").json()
            names[status["name"]] = (
                {n["name"] for n in status["nodes"]},
                {c["name"] for c in status["collections"]},
            )
    assert "zoo" in names["appliance"][1]
    assert names["babbler"] == ({"hf", "ret"}, {"notes"})
    assert names["appliance"][0] == {"llm-0", "ret-0", "ret-1"}
    assert not set(appliance.pids()) & set(babbler.pids())
    ports = [n["address"] for rig in (appliance, babbler) for n in rig.state["nodes"]]
    assert len(ports) == len(set(ports))


def test_a_second_rig_on_the_same_data_is_refused(babbler: RunningRig) -> None:
    started_s = time.monotonic()
    second = babbler.command("up", "-c", str(babbler.config), timeout_s=60)
    assert second.returncode != 0
    assert "already runs" in second.stderr + second.stdout
    assert time.monotonic() - started_s < 60
    with babbler.client() as client:
        assert client.get("/readyz").status_code == 200
