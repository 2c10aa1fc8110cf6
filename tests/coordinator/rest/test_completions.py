"""POST /v1/completions: OpenAI's older form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coordinator.rest.openai_replies import CompletionReply
from coordinator.rest.operations.completions import _Logprobs
from coordinator.types import QuerySpec
from ragschema.types import Sampling, TokenChance, TokenLogprob
from tests.coordinator.rest.conftest import Rig

PATH = "/v1/completions"
ASKED: dict[str, Any] = {"model": "ragrig/docs", "prompt": "How are keys rotated?"}
ANSWER = "Keys are rotated weekly [1]."


async def test_a_completion_has_openai_s_shape_and_citations(rig: Rig) -> None:
    options = {"max_tokens": 7, "stop": "END", "top_k": 5, "seed": 3}
    response = await rig.post(PATH, {**ASKED, **options})
    assert response.status_code == 200
    reply = CompletionReply.model_validate_json(response.content)
    assert reply.id.startswith("cmpl-")
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == (ANSWER, "stop")
    assert reply.choices[0].logprobs is None
    assert reply.usage.total_tokens == 24
    assert reply.citations[0].document_id == "guides/0"
    spec = rig.runtime.pipeline.specs[-1]
    assert isinstance(spec, QuerySpec)
    assert spec.question == spec.search.text == ASKED["prompt"]
    assert spec.history == ()
    assert spec.sampling == Sampling(max_tokens=7, stop=("END",), top_k=5, seed=3)


async def test_several_answers_with_log_probabilities(rig: Rig) -> None:
    response = await rig.post(PATH, {**ASKED, "n": 2, "logprobs": 1})
    reply = CompletionReply.model_validate_json(response.content)
    assert [choice.finish_reason for choice in reply.choices] == ["stop", "length"]
    told = reply.choices[1].logprobs
    assert told is not None
    assert "".join(told.tokens) == ANSWER
    assert told.text_offset == [0, 5, 9, 17]
    assert told.token_logprobs == [-0.25] * 4
    assert told.top_logprobs[0] == {"\ufffd": -9.5}


async def test_a_stream_goes_on_counting_characters(rig: Rig) -> None:
    options = {"stream": True, "logprobs": 0, "n": 2, "stream_options": {"include_usage": True}}
    lines = (await rig.post(PATH, {**ASKED, **options})).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert chunks[-1]["usage"]["total_tokens"] == 24
    assert "citations" in chunks[-2]
    for index in (0, 1):
        mine = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in mine) == ANSWER
        told = [choice["logprobs"] for choice in mine if choice["logprobs"]]
        assert [offset for one in told for offset in one["text_offset"]] == [0, 5, 9, 17]


def test_offsets_count_characters_of_tokens_that_share_them() -> None:
    parts = (b"a", "é".encode()[:1], "é".encode()[1:], "漢".encode())
    logprobs = [TokenLogprob(TokenChance("?", part, -1.0)) for part in parts]
    told = _Logprobs(wanted=True).told(logprobs)
    assert told is not None
    assert told["text_offset"] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    "option",
    [
        {"suffix": "x"}, {"logit_bias": {}}, {"echo": True}, {"best_of": 2}, {"prompt": ["a"]},
        {"prompt": " "}, {"logprobs": 21}, {"logprobs": True}, {"max_completion_tokens": 5},
        {"messages": []},
    ],
    ids=repr,
)  # fmt: skip
async def test_what_would_change_the_answer_is_refused(rig: Rig, option: dict[str, Any]) -> None:
    response = await rig.post(PATH, {**ASKED, **option})
    assert response.status_code == 422
    if next(iter(option)) in ("suffix", "logit_bias"):
        assert "does not support" in response.json()["error"]["message"]
    assert rig.runtime.pipeline.specs == []


async def test_which_collection_must_be_clear(rig: Rig) -> None:
    response = await rig.post(PATH, {**ASKED, "model": "gpt-4o"})
    assert (response.status_code, response.json()["error"]["field"]) == (404, "model")
