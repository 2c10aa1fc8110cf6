"""What an engine does with requests besides answering them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from llm_node.engine.config import EngineConfig
from llm_node.engine.engine import Engine
from llm_node.engine.load import LoadedModel
from llm_node.engine.request import EngineRequest, Finish, PausePolicy, PauseReason
from llm_node.engine.runner import best_of, pieces_of
from ragschema.errors import (
    Conflict,
    IncompatibleRequest,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
)
from ragschema.types import Sampling
from tests.llm_node.engine.harness import SMALL, Run, greedy, kv_bytes, prefilled, prompt_of

PROMPT = prompt_of(1, 10)


def _alone(model: LoadedModel, prompt: tuple[int, ...], tokens: int, **others: Any) -> list[int]:
    run = Run.of(model)
    run.engine.add(greedy("a", prompt, tokens, **others))
    return run.finish().tokens["a", 0]


# Admission


def test_a_long_prompt_is_refused_and_nothing_is_cut(llama: LoadedModel) -> None:
    run = Run.of(llama)
    with pytest.raises(PayloadTooLarge, match="the prompt has 128 tokens, a request may have 128"):
        run.engine.add(greedy("a", prompt_of(1, 128), 1))
    run.engine.add(greedy("a", prompt_of(1, 127), 9))
    run.finish()
    assert len(run.tokens["a", 0]) == 1
    assert run.ended["a", 0].finish is Finish.LENGTH


@pytest.mark.parametrize(
    ("prompt", "message"),
    [((), "no tokens"), ((5, 320), "reach from 5 to 320"), ((-1,), "from -1")],
)
def test_prompts_without_sense_are_refused(
    llama: LoadedModel, prompt: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        Run.of(llama).engine.add(greedy("a", prompt, 1))
    assert caught.value.field == "prompt_ids"


def test_two_live_requests_cannot_share_an_id(llama: LoadedModel) -> None:
    run = Run.of(llama)
    run.engine.add(greedy("a", PROMPT, 2))
    with pytest.raises(Conflict, match="'a' is still running"):
        run.engine.add(greedy("a", PROMPT, 2))
    run.finish()
    run.engine.add(greedy("a", PROMPT, 2))


def test_a_cache_too_small_for_one_request_is_refused_at_start(llama: LoadedModel) -> None:
    config = replace(SMALL, kv_bytes=kv_bytes(llama, SMALL, 31))
    with pytest.raises(
        InvalidInput, match="hold 124 tokens of 384 bytes, one request may have 128"
    ):
        Engine(llama, config)
    Engine(llama, replace(config, kv_bytes=kv_bytes(llama, SMALL, 32)))


def test_more_than_the_models_context_is_refused(llama: LoadedModel) -> None:
    with pytest.raises(InvalidInput, match="513 tokens are more than the model's context of 512"):
        Engine(llama, EngineConfig(max_tokens_per_request=513))


def test_the_cache_takes_no_more_than_its_requests_can_use(llama: LoadedModel) -> None:
    assert Engine(llama, SMALL).stats().blocks_total == 8 * 32


# Ends


def test_end_of_sequence_and_stop_ids(llama: LoadedModel) -> None:
    tokens = _alone(llama, PROMPT, 20)
    place = next(i for i in range(3, 20) if tokens[i] not in tokens[:i])
    eos = frozenset({tokens[place]})
    assert _alone(llama, PROMPT, 20, eos=eos) == tokens[: place + 1]
    run = Run.of(llama)
    run.engine.add(EngineRequest("ignored", PROMPT, Sampling(20, ignore_eos=True), eos))
    run.engine.add(EngineRequest("stopped", PROMPT, Sampling(20, stop_ids=tuple(eos))))
    run.finish()
    assert run.tokens["ignored", 0] == tokens
    assert run.tokens["stopped", 0] == tokens[: place + 1]
    assert run.ended["stopped", 0].finish is Finish.STOP


def test_cancel_frees_blocks_at_once(llama: LoadedModel) -> None:
    run = Run.of(llama)
    run.engine.add(greedy("a", PROMPT, 50))
    run.engine.add(EngineRequest("b", PROMPT, Sampling(50, n=2)))
    for _ in range(3):
        run.step()
    assert run.engine.stats().running == 3
    run.engine.cancel("b")
    run.engine.cancel("a")
    run.engine.cancel("unknown")
    assert run.engine.stats().blocks_used == 0
    run.engine.check_integrity()
    run.finish()
    assert {e.finish for e in run.ended.values()} == {Finish.CANCELLED}
    assert len(run.ended) == 3


def test_deadlines_end_waiting_running_and_paused(llama: LoadedModel) -> None:
    clock = [0.0]
    engine = Engine(llama, replace(SMALL, max_running=1), clock=lambda: clock[0])
    run = Run(engine)
    pause = PausePolicy(every_tokens=1)
    engine.add(greedy("paused", PROMPT, 90, deadline_s=3.0, pause=pause))
    run.step()
    engine.add(greedy("running", PROMPT, 90, deadline_s=4.0))
    engine.add(greedy("waiting", PROMPT, 90, deadline_s=2.0))
    run.step()
    stats = engine.stats()
    assert (stats.paused, stats.running, stats.waiting) == (1, 1, 1)
    for now_s, expected in ((1.9, 0), (2.0, 1), (3.5, 2), (4.0, 3)):
        assert engine.next_deadline_s() is not None
        clock[0] = now_s
        run.step()
        assert len(run.ended) == expected
    assert engine.next_deadline_s() is None
    assert {e.finish for e in run.ended.values()} == {Finish.DEADLINE}
    assert engine.stats().blocks_used == 0


def test_nan_ends_its_own_sequence_alone(llama: LoadedModel) -> None:
    expected = _alone(llama, PROMPT, 5)
    run = Run.of(llama)
    runner: Any = run.engine._runner
    original = runner.run

    def broken(chunks: Any) -> Any:
        output = original(chunks)
        sampled = [chunk.sequence for chunk in chunks if chunk.samples]
        for row, sequence in enumerate(sampled):
            if sequence.request.request_id == "bad" and len(sequence.output_ids) == 2:
                output.logits[row] = float("nan")
        return replace(output, best=best_of(output.logits, pieces_of(output.logits.shape[1])))

    runner.run = broken
    run.engine.add(greedy("bad", PROMPT, 5))
    run.engine.add(greedy("good", PROMPT, 5))
    run.finish()
    assert run.tokens["good", 0] == expected
    assert run.tokens["bad", 0] == expected[:2]
    assert run.ended["bad", 0].finish is Finish.ERROR
    assert "NaN" in run.ended["bad", 0].message


def test_nobody_finds_the_kv_that_gave_nan(llama: LoadedModel) -> None:
    """Whatever it came from, an imported cache perhaps: who asks again computes it anew."""
    prompt = prompt_of(5, 30)
    run = Run.of(llama)
    run.engine.add(greedy("bad", prompt, 20))
    run.step()
    (sequence,) = run.engine._scheduler.running
    run.engine._kv.values[1][run.engine._kv.slots(sequence.blocks, 4)] = float("nan")
    run.finish()
    assert run.ended["bad", 0].finish is Finish.ERROR
    run.engine.add(greedy("again", prompt, 6))
    run.finish()
    assert run.tokens["again", 0] == _alone(llama, prompt, 6)


# Order


def test_a_higher_priority_takes_the_place_of_a_lower_one(llama: LoadedModel) -> None:
    expected = {name: _alone(llama, prompt_of(i, 9), 20) for i, name in enumerate("abc")}
    run = Run.of(llama, max_running=2)
    run.engine.add(greedy("a", prompt_of(0, 9), 20, priority=1))
    run.engine.add(greedy("b", prompt_of(1, 9), 20, priority=2))
    run.step()
    run.engine.add(greedy("c", prompt_of(2, 9), 20, priority=0))
    run.finish()
    assert run.engine.stats().preempted == 1
    assert [key[0] for key in run.ended] == ["a", "c", "b"]
    assert {key[0]: tokens for key, tokens in run.tokens.items()} == expected


def test_equal_priorities_are_served_in_order(llama: LoadedModel) -> None:
    run = Run.of(llama, max_running=1)
    for name in "abc":
        run.engine.add(greedy(name, PROMPT, 3))
    run.finish()
    assert [key[0] for key in run.ended] == ["a", "b", "c"]
    assert run.engine.stats().preempted == 0


def test_a_step_keeps_its_budget_and_prompts_do_not_hold_up_decoding(llama: LoadedModel) -> None:
    run = Run.of(llama, step_tokens=32, prefill_chunk=6)
    run.engine.add(greedy("a", PROMPT, 20))
    run.step()
    for n in range(3):
        run.engine.add(greedy(str(n), prompt_of(n, 40), 2))
    while ("a", 0) not in run.ended:
        before = len(run.tokens["a", 0])
        run.step()
        assert len(run.tokens["a", 0]) == before + 1
        stats = run.engine.stats()
        assert stats.batch_tokens <= stats.running + len(run.ended) + 6
    run.finish()


# Pauses


def test_interval_pause_reads_context_and_goes_on(llama: LoadedModel) -> None:
    run = Run.of(llama)
    policy = PausePolicy(every_tokens=3)
    run.engine.add(greedy("a", PROMPT, 8, pause=policy, capture_hidden=True))
    run.finish()
    (paused,) = run.paused["a"]
    head = _alone(llama, PROMPT, 8)[:3]
    assert paused.reason is PauseReason.INTERVAL
    assert list(paused.new_ids) == run.tokens["a", 0] == head
    assert run.engine.stats().paused == 1
    extra = prompt_of(4, 7)
    run.engine.resume("a", extra)
    run.finish()
    behind = _alone(llama, (*PROMPT, *head, *extra), 3)
    assert run.tokens["a", 0] == head + behind
    run.engine.resume("a", ())
    run.finish()
    assert len(run.tokens["a", 0]) == 8
    assert run.ended["a", 0].finish is Finish.LENGTH


def test_trigger_pause(llama: LoadedModel) -> None:
    expected = _alone(llama, PROMPT, 12)
    trigger = expected[4]
    run = Run.of(llama)
    policy = PausePolicy(trigger_ids=frozenset({trigger}))
    run.engine.add(greedy("a", PROMPT, 12, pause=policy))
    run.finish()
    while run.engine.stats().paused:
        run.engine.resume("a", ())
        run.finish()
    assert run.tokens["a", 0] == expected
    assert len(run.paused["a"]) == sum(t == trigger for t in expected[:-1])
    assert {p.reason for p in run.paused["a"]} == {PauseReason.TRIGGER}


def test_others_go_on_while_one_is_paused(llama: LoadedModel) -> None:
    run = Run.of(llama, max_running=1)
    run.engine.add(greedy("a", PROMPT, 9, pause=PausePolicy(every_tokens=2)))
    run.engine.add(greedy("b", PROMPT, 9))
    run.finish()
    assert run.tokens["b", 0] == _alone(llama, PROMPT, 9)
    assert len(run.tokens["a", 0]) == 2


def test_the_hidden_state_is_what_the_head_reads(llama: LoadedModel) -> None:
    run = Run.of(llama)
    run.engine.add(greedy("a", PROMPT, 8, pause=PausePolicy(every_tokens=3), capture_hidden=True))
    run.finish()
    hidden = run.paused["a"][0].hidden
    assert hidden is not None
    assert (hidden.dtype, hidden.shape) == (np.float32, (32,))
    with torch.inference_mode():
        logits = llama.module.get_output_embeddings()(torch.from_numpy(hidden))
    assert int(logits.argmax()) == run.tokens["a", 0][2]
    assert torch.allclose(logits, run.logits["a", 0][2], atol=1e-5)


def test_neighbours_decide_the_next_token(llama: LoadedModel) -> None:
    expected = _alone(llama, PROMPT, 4)
    run = Run.of(llama)
    run.engine.add(greedy("a", PROMPT, 4, pause=PausePolicy(every_token_hidden=True)))
    run.finish()
    other = (expected[0] + 1) % 320
    near, far = np.array([other], np.int32), np.array([0.5], np.float32)
    assert run.tokens == {}
    assert run.paused["a"][0].hidden is not None
    run.engine.resume_mixed("a", near, far, lam=1.0, temperature=1.0)
    with pytest.raises(Conflict, match="not paused"):
        run.engine.resume("a", ())
    run.finish()
    assert run.tokens["a", 0] == [other]
    run.engine.resume_mixed("a", near, far, lam=0.0, temperature=1.0)
    run.finish()
    behind = _alone(llama, (*PROMPT, other), 3)
    assert run.tokens["a", 0] == [other, behind[0]]
    run.engine.resume("a", ())
    run.finish()
    run.engine.resume("a", ())
    run.finish()
    assert run.tokens["a", 0] == [other, *behind]
    assert [p.new_ids for p in run.paused["a"]] == [(), (other,), (behind[0],), (behind[1],)]
    assert {p.reason for p in run.paused["a"]} == {PauseReason.NEIGHBOURS}


def test_resume_refuses(llama: LoadedModel) -> None:
    run = Run.of(llama)
    run.engine.add(greedy("a", PROMPT, 9, pause=PausePolicy(every_tokens=2)))
    with pytest.raises(Conflict, match="'a' is not paused"):
        run.engine.resume("a", ())
    with pytest.raises(NotFound, match="no request 'b'"):
        run.engine.resume("b", ())
    run.finish()
    with pytest.raises(PayloadTooLarge, match="116 tokens of context do not fit, 116 are left"):
        run.engine.resume("a", prompt_of(1, 116))
    with pytest.raises(InvalidInput, match="reach from 400"):
        run.engine.resume("a", [400])
    with pytest.raises(Conflict, match="holds no token back"):
        run.engine.resume_mixed("a", np.zeros(1, np.int32), np.zeros(1, np.float32), 0.5, 1.0)
    run.engine.resume("a", prompt_of(1, 115))
    run.finish()
    assert run.ended["a", 0].finish is Finish.LENGTH


def test_a_paused_sequence_gives_up_blocks_unless_it_holds_them(llama: LoadedModel) -> None:
    config = replace(SMALL, max_tokens_per_request=32, kv_bytes=kv_bytes(llama, SMALL, 9))
    for hold in (False, True):
        run = Run.of(llama, config)
        policy = PausePolicy(every_tokens=1, hold_kv=hold)
        run.engine.add(greedy("first", prompt_of(1, 20), 3, priority=1, pause=policy))
        run.finish()
        run.engine.add(greedy("second", prompt_of(2, 20), 3))
        for _ in range(10):
            run.step()
        assert (("second", 0) in run.ended) is not hold
        if hold:
            assert run.engine.stalled
        run.engine.resume("first", ())
        while run.engine.stats().paused or run.engine.has_work:
            run.step()
            if run.engine.stats().paused:
                run.engine.resume("first", ())
        assert run.tokens["first", 0] == _alone(llama, prompt_of(1, 20), 3)
        assert run.tokens["second", 0] == _alone(llama, prompt_of(2, 20), 3)


# KV between engines


@pytest.mark.parametrize("tokens", [1, 8, 30])
def test_another_engine_goes_on_from_a_snapshot(llama: LoadedModel, tokens: int) -> None:
    prompt = prompt_of(tokens, tokens)
    snapshot, first = prefilled(llama, prompt)
    assert (snapshot.computed, snapshot.token_ids) == (tokens, (*prompt, *first))
    run = Run.of(llama)
    run.engine.import_kv(greedy("d", prompt, 10), snapshot, {0: first})
    run.finish()
    assert first + run.tokens["d", 0] == _alone(llama, prompt, 10)
    assert run.engine.stats().computed_tokens == 9


def test_a_snapshot_without_its_first_token(llama: LoadedModel) -> None:
    snapshot, _ = prefilled(llama, PROMPT)
    run = Run.of(llama)
    run.engine.import_kv(greedy("d", PROMPT, 6), snapshot, {0: ()})
    run.finish()
    assert run.tokens["d", 0] == _alone(llama, PROMPT, 6)
    assert run.engine.stats().computed_tokens == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "other"}, "comes from model other"),
        ({"dtype": torch.float16}, "is torch.float16"),
        ({"computed": 0}, "has 0 of 11 tokens"),
        ({"keys": ()}, "has 0 layers"),
        ({"computed": 9}, "other shapes in layer 0"),
        ({"token_ids": tuple(range(11))}, "belongs to other tokens"),
    ],
)
def test_foreign_snapshots_are_refused(
    llama: LoadedModel, change: dict[str, Any], message: str
) -> None:
    snapshot, first = prefilled(llama, PROMPT)
    run = Run.of(llama)
    with pytest.raises(IncompatibleRequest, match=message):
        run.engine.import_kv(greedy("d", PROMPT, 6), replace(snapshot, **change), {0: first})
    assert not run.engine.has_work


def test_there_must_be_kv_to_export(llama: LoadedModel) -> None:
    run = Run.of(llama)
    run.engine.add(greedy("a", PROMPT, 3))
    with pytest.raises(Conflict, match="has no KV now"):
        run.engine.export_kv("a")
    with pytest.raises(NotFound):
        run.engine.export_kv("b")
