"""Sampling options through the whole engine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from llm_node.engine.admit import seed_of
from llm_node.engine.load import LoadedModel
from llm_node.engine.request import EngineRequest, Finish, PausePolicy, TokenOut
from ragschema.errors import InvalidInput
from ragschema.types import Sampling
from tests.llm_node.engine.harness import Run, greedy, kv_bytes, prompt_of

PROMPT = prompt_of(1, 21)
OPTIONS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 1.0, "top_k": 12},
    {"temperature": 1.4, "top_p": 0.8, "min_p": 0.02},
    {"repetition_penalty": 1.4},
    {"temperature": 0.7, "presence_penalty": 1.0, "frequency_penalty": 0.6},
    {"temperature": 1.0, "min_tokens": 18},
    {},
]


def _request(name: str, number: int, **options: Any) -> EngineRequest:
    sampling = Sampling(max_tokens=24, **options)
    eos = frozenset({7, 8, 9} if sampling.min_tokens else ())
    return EngineRequest(name, PROMPT[number:], sampling, eos, seed=number)


def _alone(model: LoadedModel, request: EngineRequest) -> list[int]:
    run = Run.of(model)
    run.engine.add(request)
    return run.finish().tokens[request.request_id, 0]


def test_a_seed_gives_the_same_whatever_else_runs(llama: LoadedModel) -> None:
    requests = [_request(str(i), i, **options) for i, options in enumerate(OPTIONS)]
    alone = [_alone(llama, request) for request in requests]
    few = kv_bytes(llama, Run.of(llama).engine.config, 34)
    cases: list[dict[str, Any]] = [{}, {"kv_bytes": few, "prefix_reuse": False}]
    for changes in cases:
        run = Run.of(llama, **changes)
        for request in reversed(requests):
            run.engine.add(request)
            run.step()
        run.finish()
        assert [run.tokens[str(i), 0] for i in range(len(requests))] == alone
    assert run.engine.stats().preempted > 0


def test_a_strong_penalty_never_repeats(llama: LoadedModel) -> None:
    assert len(set(_alone(llama, greedy("a", PROMPT, 90)))) < 90
    sampling = Sampling(max_tokens=90, repetition_penalty=100.0)
    written = _alone(llama, EngineRequest("a", PROMPT, sampling))
    assert len(set(written)) == 90
    assert not set(written) & set(PROMPT)


def test_no_end_comes_before_min_tokens(llama: LoadedModel) -> None:
    best = _alone(llama, greedy("a", PROMPT, 24))
    sampling = Sampling(max_tokens=24, min_tokens=10)
    run = Run.of(llama)
    run.engine.add(EngineRequest("a", PROMPT, sampling, eos=frozenset(best[:3])))
    written = run.finish().tokens["a", 0]
    assert len(written) >= 10
    assert not set(written[:10]) & set(best[:3])


def test_log_probabilities_are_those_of_the_logits(llama: LoadedModel) -> None:
    run = Run.of(llama)
    sampling = Sampling(max_tokens=6, logprobs=3, temperature=1.5, repetition_penalty=1.2)
    run.engine.add(EngineRequest("a", PROMPT, sampling, seed=2))
    events = [e for _ in range(6) for e in run.step() if isinstance(e, TokenOut)]
    for event, logits in zip(events, run.logits["a", 0], strict=True):
        own = torch.log_softmax(logits, dim=-1)
        assert event.logprob == pytest.approx(float(own[event.token_id]), abs=1e-5)
        assert [value for _, value in event.top] == pytest.approx(own.topk(3).values.tolist())


def test_neighbours_and_options_go_together(llama: LoadedModel) -> None:
    """kNN-LM: options work on the mixed distribution, whose log probabilities are told."""
    run = Run.of(llama)
    sampling = Sampling(
        max_tokens=4, temperature=1.0, top_k=1, repetition_penalty=100.0, logprobs=1
    )
    pause = PausePolicy(every_token_hidden=True)
    run.engine.add(EngineRequest("a", PROMPT, sampling, pause=pause, seed=1))
    new = [token for token in range(2, 320) if token not in PROMPT][:4]
    told: list[TokenOut] = []
    for token in new:
        run.step()
        # The first neighbour is nearer, but the prompt has it already.
        tokens = np.array([PROMPT[0], token], np.int32)
        run.engine.resume_mixed("a", tokens, np.array([0.0, 1.0], np.float32), 1.0, 1.0)
        told += [event for event in run.step() if isinstance(event, TokenOut)]
    run.finish()
    assert run.tokens["a", 0] == new
    share = 1 / (1 + math.exp(1.0))
    assert [math.exp(one.logprob or 0.0) for one in told] == pytest.approx([share] * 4, abs=1e-5)
    assert all(one.top[0][0] == PROMPT[0] for one in told)


def test_n_sequences_share_the_prompts_blocks(llama: LoadedModel) -> None:
    run = Run.of(llama, prefix_reuse=False)
    run.engine.add(EngineRequest("a", PROMPT, Sampling(30, temperature=1.0, n=4), seed=5))
    run.step()
    run.step()
    assert run.engine.stats().running == 4
    # 5 full blocks of 4 tokens are shared, and one of its own holds each one's 21st.
    assert run.engine.stats().blocks_used == 5 + 4
    run.finish()
    assert len({tuple(run.tokens["a", i]) for i in range(4)}) == 4
    for i in range(4):
        request = EngineRequest("b", PROMPT, Sampling(30, temperature=1.0), seed=seed_of(5, i))
        assert _alone(llama, request) == run.tokens["a", i]


def test_one_of_n_can_be_cancelled(llama: LoadedModel) -> None:
    run = Run.of(llama)
    run.engine.add(EngineRequest("a", PROMPT, Sampling(12, n=3)))
    for _ in range(3):
        run.step()
    run.engine.cancel("a", 0)
    run.finish()
    finishes = [run.ended["a", i].finish for i in range(3)]
    assert finishes == [Finish.CANCELLED, Finish.LENGTH, Finish.LENGTH]
    assert len(run.tokens["a", 1]) == 12


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"top_k": -3}, "sampling.top_k"),
        ({"min_tokens": 9, "max_tokens": 3}, "sampling.min_tokens"),
        ({"stop_ids": (320,)}, "sampling.stop_ids"),
        ({"n": 0}, "sampling.n"),
    ],
)
def test_options_out_of_range_are_refused(
    llama: LoadedModel, options: dict[str, Any], field: str
) -> None:
    engine = Run.of(llama).engine
    with pytest.raises(InvalidInput) as caught:
        engine.add(EngineRequest("a", PROMPT, Sampling(**options)))
    assert caught.value.field == field
    assert not engine.has_work
