"""POST /v1/chat/completions: what is taken from OpenAI's API and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coordinator.rest.openai_replies import ChatReply
from coordinator.types import QuerySpec
from ragschema.errors import IncompatibleRequest, Unavailable
from ragschema.types import ChatMessage, Sampling
from tests.coordinator.rest.conftest import Rig

PATH = "/v1/chat/completions"
CHAT: dict[str, Any] = {
    "model": "ragrig/docs",
    "messages": [{"role": "user", "content": "How are keys rotated?"}],
}


def last_spec(rig: Rig) -> QuerySpec:
    spec = rig.runtime.pipeline.specs[-1]
    assert isinstance(spec, QuerySpec)
    return spec


async def test_a_completion_has_openai_s_shape_and_citations(rig: Rig) -> None:
    response = await rig.post(PATH, CHAT)
    assert response.status_code == 200
    reply = ChatReply.model_validate_json(response.content)
    assert reply.choices[0].message.content == "Keys are rotated weekly [1]."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == 24
    assert reply.citations[0].document_id == "guides/0"
    assert reply.retrieval.recall_expected == 0.95


async def test_a_wanted_recall_reaches_the_pipeline(rig: Rig) -> None:
    assert (await rig.post(PATH, {**CHAT, "recall": 0.9})).status_code == 200
    assert last_spec(rig).search.recall == 0.9
    assert (await rig.post(PATH, {**CHAT, "recall": 0.9, "nprobe": 1})).status_code == 422


async def test_turns_and_parts_become_history_and_question(rig: Rig) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}],
        },
        {"role": "assistant", "content": "A key."},
        {"role": "user", "content": "And now?"},
    ]
    options = {"temperature": 0, "max_completion_tokens": 7, "stop": "END", "user": "me", "n": 1}
    assert (await rig.post(PATH, {**CHAT, "messages": messages, **options})).status_code == 200
    spec = last_spec(rig)
    assert spec.question == spec.search.text == "And now?"
    assert spec.history == (
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "What is it?"),
        ChatMessage("assistant", "A key."),
    )
    assert spec.sampling == Sampling(max_tokens=7, stop=("END",))


async def test_the_collection_may_be_a_field(rig: Rig) -> None:
    body = {**CHAT, "model": "extractive", "collection": "docs"}
    assert (await rig.post(PATH, body)).status_code == 200
    assert last_spec(rig).search.collection == "docs"
    assert (await rig.post(PATH, {**CHAT, "collection": "docs"})).status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"model": "gpt-4o"}, 404, "model"),
        ({"model": "ragrig/../x"}, 404, "model"),
        ({"model": "ragrig/nope"}, 404, "collection"),
        ({"model": "extractive"}, 422, "collection"),
        ({"collection": "other"}, 422, "collection"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_which_collection_must_be_clear(
    rig: Rig, change: dict[str, Any], status: int, field: str
) -> None:
    response = await rig.post(PATH, {**CHAT, **change})
    assert response.status_code == status
    assert response.json()["error"]["field"] == field


@pytest.mark.parametrize(
    "option",
    [
        {"tools": []},
        {"n": 0},
        {"n": 17},
        {"logprobs": 1},
        {"top_logprobs": 3},
        {"logprobs": True, "top_logprobs": 21},
        {"logit_bias": {}},
        {"presence_penalty": 2.5},
        {"frequency_penalty": -2.1},
        {"top_k": -1},
        {"min_p": 1.5},
        {"repetition_penalty": 0},
        {"min_tokens": 9, "max_tokens": 8},
        {"stop_token_ids": [-1]},
        {"ignore_eos": 1},
        {"response_format": {"type": "json_object"}},
        {"stream_options": {"include_usage": "yes"}},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "hi"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        {"unheard_of": 1},
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_would_change_the_answer_is_refused(rig: Rig, option: dict[str, Any]) -> None:
    response = await rig.post(PATH, {**CHAT, **option})
    assert response.status_code == 422
    name = next(iter(option))
    if name in ("tools", "logit_bias", "response_format"):
        assert "does not support" in response.json()["error"]["message"]
        assert response.json()["error"]["field"] == name
    assert rig.runtime.pipeline.specs == []


async def test_sampling_options_reach_the_pipeline(rig: Rig) -> None:
    options = {
        "n": 2, "logprobs": True, "top_logprobs": 3, "presence_penalty": 0.5,
        "frequency_penalty": -1, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1,
        "min_tokens": 4, "stop_token_ids": [7, 9], "ignore_eos": True,
    }  # fmt: skip
    assert (await rig.post(PATH, {**CHAT, **options})).status_code == 200
    assert last_spec(rig).sampling == Sampling(
        n=2, logprobs=3, presence_penalty=0.5, frequency_penalty=-1, top_k=40, min_p=0.05,
        repetition_penalty=1.1, min_tokens=4, stop_ids=(7, 9), ignore_eos=True,
    )  # fmt: skip


async def test_several_answers_are_choices(rig: Rig) -> None:
    reply = ChatReply.model_validate_json((await rig.post(PATH, {**CHAT, "n": 3})).content)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert [choice.finish_reason for choice in reply.choices] == ["stop", "length", "length"]
    assert {choice.message.content for choice in reply.choices} == {"Keys are rotated weekly [1]."}
    assert [citation.cited for citation in reply.citations] == [True]


async def test_log_probabilities_have_openai_s_shape(rig: Rig) -> None:
    response = await rig.post(PATH, {**CHAT, "logprobs": True, "top_logprobs": 1})
    reply = ChatReply.model_validate_json(response.content)
    assert reply.choices[0].logprobs is not None
    first = reply.choices[0].logprobs.content[0]
    assert (first.token, first.logprob, bytes(first.bytes)) == ("Keys ", -0.25, b"Keys ")
    assert first.top_logprobs[0].bytes == [0xC3]
    plain = ChatReply.model_validate_json((await rig.post(PATH, CHAT)).content)
    assert plain.choices[0].logprobs is None


async def test_a_stream_of_several_answers_with_log_probabilities(rig: Rig) -> None:
    body = {**CHAT, "stream": True, "n": 2, "logprobs": True}
    lines = (await rig.post(PATH, body)).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    for index, finish in ((0, "stop"), (1, "length")):
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        text = "".join(choice["delta"].get("content", "") for choice in mine)
        assert text == "Keys are rotated weekly [1]."
        told = [c["logprobs"]["content"] for c in mine if c["logprobs"] is not None]
        assert "".join(one["token"] for content in told for one in content) == text
        assert mine[-1]["finish_reason"] == finish
    assert ["citations" in chunk for chunk in chunks[-2:]] == [False, True]


@pytest.mark.parametrize(
    ("told", "field"),
    [("sampling.top_k", "top_k"), ("sampling.stop_ids.3", "stop_token_ids.3"), ("n", "n")],
)
async def test_a_generator_s_refusal_names_the_body_s_field(
    rig: Rig, told: str, field: str
) -> None:
    rig.runtime.pipeline.error = IncompatibleRequest("the generator has no such option", field=told)
    response = await rig.post(PATH, CHAT)
    assert (response.status_code, response.json()["error"]["field"]) == (422, field)


async def test_zero_penalties_and_nulls_are_harmless(rig: Rig) -> None:
    body = {**CHAT, "presence_penalty": 0, "frequency_penalty": 0.0, "seed": None, "stop": None}
    assert (await rig.post(PATH, body)).status_code == 200


async def test_a_stream_ends_with_citations_usage_and_done(rig: Rig) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    response = await rig.post(PATH, body)
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert text == "Keys are rotated weekly [1]."
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["citations"][0]["document_id"] == "guides/0"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 24


async def test_a_stream_without_options_has_no_usage_chunk(rig: Rig) -> None:
    response = await rig.post(PATH, {**CHAT, "stream": True})
    assert "usage" not in response.text


async def test_a_late_error_is_a_chunk_with_our_error(rig: Rig) -> None:
    rig.runtime.pipeline.late_error = Unavailable("the LLM node left")
    response = await rig.post(PATH, {**CHAT, "stream": True})
    last = response.text.split("\n\n")[-2]
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "unavailable"
    assert "[DONE]" not in response.text
