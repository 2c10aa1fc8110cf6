"""Random arrivals, cancels, deadlines, pauses and priorities in very little memory."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from llm_node.engine.config import EngineConfig
from llm_node.engine.engine import Engine
from llm_node.engine.load import LoadedModel
from llm_node.engine.request import (
    EngineRequest,
    Finish,
    Paused,
    PausePolicy,
    TokenOut,
)
from ragschema.errors import PayloadTooLarge
from ragschema.types import Sampling
from tests.llm_node.engine.harness import Run, kv_bytes, prompt_of

LONGEST = 48
REQUESTS = 24


def _request(rng: random.Random, number: int) -> EngineRequest:
    head = prompt_of(rng.randrange(2), rng.choice([0, 8, 16]))
    prompt = head + prompt_of(100 + number, rng.randrange(1, 20))
    sampling = Sampling(
        max_tokens=rng.randrange(1, 14),
        temperature=rng.choice([0.0, 1.0]),
        seed=number,
        n=rng.choice([1, 1, 1, 3]),
        top_k=rng.choice([0, 0, 20]),
        min_p=rng.choice([0.0, 0.0, 0.02]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.2]),
        frequency_penalty=rng.choice([0.0, 0.0, 0.5]),
        min_tokens=rng.choice([0, 0, 1]),
    )
    pause = None
    if rng.random() < 0.3:
        pause = PausePolicy(every_tokens=rng.randrange(1, 5), hold_kv=rng.random() < 0.2)
    return EngineRequest(
        request_id=str(number),
        prompt_ids=prompt,
        sampling=sampling,
        eos=frozenset(rng.sample(range(2, 320), 8)),
        priority=rng.randrange(3),
        deadline_s=rng.uniform(5, 60) if rng.random() < 0.2 else None,
        pause=pause,
        seed=number,
    )


def _resume(engine: Engine, key: tuple[str, int], pauses: int) -> None:
    """Sends context at a pause, the same in every run, or none where it does not fit."""
    request_id, index = key
    seed = 1000 + 17 * int(request_id) + 400 * index + pauses
    try:
        engine.resume(request_id, prompt_of(seed, pauses % 3), index)
    except PayloadTooLarge:
        engine.resume(request_id, [], index)


@dataclass
class _Told:
    tokens: dict[tuple[str, int], list[int]]
    finish: dict[tuple[str, int], Finish]


class _Solo:
    """What a request gives when nothing else runs and nothing ends it."""

    def __init__(self, model: LoadedModel, request: EngineRequest) -> None:
        self._greedy = request.sampling.temperature == 0
        self._run = Run.of(model, block_tokens=4, max_tokens_per_request=LONGEST)
        self._run.engine.add(replace(request, deadline_s=None))
        pauses: Counter[tuple[str, int]] = Counter()
        while self._run.engine.has_work:
            for event in self._run.step():
                if isinstance(event, Paused):
                    key = (event.request_id, event.index)
                    pauses[key] += 1
                    _resume(self._run.engine, key, pauses[key])

    def check(self, key: tuple[str, int], tokens: list[int], finish: Finish) -> None:
        """The same tokens and end; a head of them when the request was ended."""
        expected = self._run.tokens[key]
        for place, (token, other) in enumerate(zip(tokens, expected, strict=False)):
            if token != other:
                # Two tokens that are equally good: rounding in a batch may choose.
                logits = self._run.logits[key][place]
                assert self._greedy
                assert abs(float(logits[token] - logits[other])) < 1e-4
                return
        if finish in (Finish.CANCELLED, Finish.DEADLINE):
            assert len(tokens) <= len(expected)
        else:
            assert (tokens, finish) == (expected, self._run.ended[key].finish)


class _Life:
    """One engine and the people who use it, all driven by one seed."""

    def __init__(self, model: LoadedModel, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_s = 0.0
        config = EngineConfig(
            block_tokens=4,
            max_tokens_per_request=LONGEST,
            max_running=self.rng.randrange(2, 8),
            step_tokens=self.rng.choice([8, 16, 64]),
            prefill_chunk=self.rng.choice([3, 8, 64]),
            prefix_reuse=self.rng.random() < 0.8,
        )
        size = self.rng.randrange(LONGEST // 4, LONGEST // 2)
        config = replace(config, kv_bytes=kv_bytes(model, config, size))
        self.engine = Engine(model, config, clock=lambda: self.now_s)
        self.requests = [_request(self.rng, number) for number in range(REQUESTS)]
        self.told = _Told({}, {})
        self.pauses: Counter[tuple[str, int]] = Counter()
        self.paused: list[tuple[str, int]] = []
        self.cancelled: set[str] = set()

    def run(self) -> None:
        coming = list(self.requests)
        for _ in range(5000):
            self.now_s += self.rng.random()
            while coming and self.rng.random() < 0.5:
                self.engine.add(coming.pop(0))
            self._resume()
            self._cancel()
            self._step()
            if not (coming or self.paused or self.engine.has_work):
                return
        raise AssertionError(f"still busy: {self.engine.stats()}")

    def _resume(self) -> None:
        for key in list(self.paused):
            if self.rng.random() < 0.4:
                self.paused.remove(key)
                _resume(self.engine, key, self.pauses[key])

    def _cancel(self) -> None:
        if self.rng.random() < 0.03:
            request_id = str(self.rng.randrange(REQUESTS))
            self.cancelled.add(request_id)
            self.engine.cancel(request_id)
            self.engine.check_integrity()

    def _step(self) -> None:
        for event in self.engine.step():
            key = (event.request_id, event.index)
            if isinstance(event, Paused):
                self.pauses[key] += 1
                self.paused.append(key)
            elif isinstance(event, TokenOut):
                self.told.tokens.setdefault(key, []).append(event.token_id)
            else:
                self.told.finish[key] = event.finish
                if key in self.paused:
                    self.paused.remove(key)
        self.engine.check_integrity()


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    return Counter()


@pytest.mark.parametrize("seed", range(12))
def test_every_request_ends_and_says_what_it_says_alone(
    llama: LoadedModel, seed: int, seen: Counter[str]
) -> None:
    print(f"seed {seed}")
    life = _Life(llama, seed)
    life.run()
    stats = life.engine.stats()
    assert (stats.blocks_used, stats.running, stats.waiting, stats.paused) == (0, 0, 0, 0)
    for request in life.requests:
        alone = _Solo(llama, request)
        for index in range(request.sampling.n):
            key = (request.request_id, index)
            finish = life.told.finish[key]
            seen[finish] += 1
            if finish is Finish.CANCELLED:
                assert request.request_id in life.cancelled
            if finish is Finish.DEADLINE:
                assert request.deadline_s is not None
            alone.check(key, life.told.tokens.get(key, []), finish)
    seen["preempted"] += stats.preempted
    seen["prefix hits"] += stats.prefix_hit_tokens
    seen["pauses"] += sum(life.pauses.values())
    seen["pauses of one of n"] += sum(c for (_, index), c in life.pauses.items() if index)


def test_the_lives_had_everything_in_them(seen: Counter[str]) -> None:
    """Runs behind the lives above: chance must have drawn every branch."""
    if not seen:
        pytest.skip("the lives were not run")
    wanted = (
        "stop",
        "length",
        "cancelled",
        "deadline",
        "preempted",
        "prefix hits",
        "pauses",
        "pauses of one of n",
    )
    assert all(seen[what] > 0 for what in wanted), seen
