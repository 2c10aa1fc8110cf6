"""Several sequences of one request: each pauses by itself, all go on from one snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llm_node.engine.admit import seed_of
from llm_node.engine.load import LoadedModel
from llm_node.engine.request import EngineRequest, PausePolicy
from ragschema.errors import InvalidInput, NotFound
from ragschema.types import Sampling
from tests.llm_node.engine.harness import Run, prefilled, prompt_of

PROMPT = prompt_of(1, 10)


def _sampled(request_id: str, seed: int, n: int, **others: Any) -> EngineRequest:
    return EngineRequest(request_id, PROMPT, Sampling(9, temperature=1.0, n=n), seed=seed, **others)


@pytest.mark.parametrize("hold", [False, True])
def test_each_of_several_sequences_pauses_by_itself(llama: LoadedModel, hold: bool) -> None:
    """Each reads context of its own, and says what it says alone."""
    policy = PausePolicy(every_tokens=4, hold_kv=hold)

    def play(run: Run, contexts: dict[int, tuple[int, ...]]) -> None:
        """Resumes in turn, the last sequence first."""
        while run.engine.stats().paused or run.engine.has_work:
            run.finish()
            for paused in sorted(run.paused.pop("a", []), key=lambda one: -one.index):
                index = paused.index
                assert list(paused.new_ids) == run.tokens["a", index][-4:]
                first = len(run.tokens["a", index]) == 4
                run.engine.resume("a", contexts[index] if first else (), index)
                run.finish()

    contexts = {index: prompt_of(40 + index, index) for index in range(3)}
    several = Run.of(llama)
    several.engine.add(_sampled("a", 5, 3, pause=policy))
    play(several, contexts)
    for index in range(3):
        alone = Run.of(llama)
        alone.engine.add(_sampled("a", seed_of(5, index), 1, pause=policy))
        play(alone, {0: contexts[index]})
        assert several.tokens["a", index] == alone.tokens["a", 0]
    assert len({tuple(several.tokens["a", index]) for index in range(3)}) == 3


def test_each_of_several_draws_with_neighbours_of_its_own(llama: LoadedModel) -> None:
    run = Run.of(llama)
    run.engine.add(_sampled("a", 5, 2, pause=PausePolicy(every_token_hidden=True)))
    near = np.array([0.5], np.float32)
    for _ in range(9):
        run.finish()
        for index in (1, 0):
            mine = np.array([30 + index], np.int32)
            run.engine.resume_mixed("a", mine, near, lam=1.0, temperature=1.0, index=index)
    run.finish()
    assert run.tokens == {("a", 0): [30] * 9, ("a", 1): [31] * 9}
    assert {one.index for one in run.paused["a"]} == {0, 1}


def test_the_others_of_n_do_not_wait_for_a_paused_one(llama: LoadedModel) -> None:
    """The first pauses before there is a place for the others, and loses its blocks."""
    run = Run.of(llama, max_running=1)
    run.engine.add(_sampled("a", 5, 2, pause=PausePolicy(every_tokens=1)))
    run.step()
    assert [one.index for one in run.paused["a"]] == [0]
    run.step()
    run.finish()
    assert [one.index for one in run.paused["a"]] == [0, 1]
    with pytest.raises(NotFound, match="with a sequence 2"):
        run.engine.resume("a", (), 2)


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("known", [(0, 0, 0), (1, 0, 7), (3, 1, None), (None, 5, 2)])
def test_several_sequences_go_on_from_one_snapshot(
    llama: LoadedModel, known: tuple[int | None, ...], reuse: bool
) -> None:
    """Also when some have written more than others, or have ended."""
    snapshot, _ = prefilled(llama, PROMPT)
    whole = Run.of(llama)
    whole.engine.add(_sampled("a", 5, 3))
    whole.finish()
    run = Run.of(llama, prefix_reuse=reuse)
    told = {i: whole.tokens["a", i][:count] for i, count in enumerate(known) if count is not None}
    run.engine.import_kv(_sampled("a", 5, 3), snapshot, told)
    run.step()
    assert run.engine.stats().blocks_used <= 2 + 3 * 3, "the prompt's full blocks are shared"
    run.finish()
    assert sorted(run.ended) == [("a", index) for index in told]
    for index, ids in told.items():
        assert list(ids) + run.tokens["a", index] == whole.tokens["a", index]
    assert run.engine.stats().computed_tokens < 3 * len(PROMPT) + 27


def test_a_snapshot_serves_the_others_when_the_first_ends_at_once(llama: LoadedModel) -> None:
    snapshot, _ = prefilled(llama, PROMPT)
    whole = Run.of(llama)
    whole.engine.add(_sampled("a", 5, 2))
    whole.finish()
    run = Run.of(llama, max_running=1, prefix_reuse=False)
    run.engine.import_kv(_sampled("a", 5, 2), snapshot, {0: whole.tokens["a", 0][:8], 1: ()})
    run.finish()
    assert run.tokens["a", 1] == whole.tokens["a", 1]
    # The first reads what it has written, the other one token of the prompt.
    assert run.engine.stats().computed_tokens == 8 + 9


@pytest.mark.parametrize("known", [{}, {3: ()}, {-1: (), 0: ()}])
def test_sequences_that_were_not_asked_for_are_refused(
    llama: LoadedModel, known: dict[int, tuple[int, ...]]
) -> None:
    snapshot, _ = prefilled(llama, PROMPT)
    run = Run.of(llama)
    with pytest.raises(InvalidInput, match="are not some of 3 sequences"):
        run.engine.import_kv(_sampled("a", 5, 3), snapshot, known)
    assert not run.engine.has_work
