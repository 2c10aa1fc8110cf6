"""Drives an engine step by step and keeps what came out of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from llm_node.engine.config import EngineConfig
from llm_node.engine.engine import Engine
from llm_node.engine.kv import KvSnapshot
from llm_node.engine.load import LoadedModel
from llm_node.engine.request import (
    Ended,
    EngineRequest,
    Paused,
    PausePolicy,
    StepEvent,
    TokenOut,
)
from ragschema.types import Sampling

#: Small blocks, so that short prompts fill several.
SMALL = EngineConfig(block_tokens=4, max_tokens_per_request=128, max_running=8, step_tokens=64)


def prompt_of(seed: int, tokens: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(2, 320) for _ in range(tokens))


def greedy(request_id: str, prompt: tuple[int, ...], tokens: int, **others: Any) -> EngineRequest:
    return EngineRequest(request_id, prompt, Sampling(max_tokens=tokens), **others)


def kv_bytes(model: LoadedModel, config: EngineConfig, blocks: int) -> int:
    return model.layout.token_bytes * config.block_tokens * blocks


@dataclass
class Run:
    """What an engine said so far, by request and index.

    Attributes:
        logits: float32 [vocabulary] of every sampled position, by request.
    """

    engine: Engine
    tokens: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    ended: dict[tuple[str, int], Ended] = field(default_factory=dict)
    paused: dict[str, list[Paused]] = field(default_factory=dict)
    logits: dict[tuple[str, int], list[torch.Tensor]] = field(default_factory=dict)

    @staticmethod
    def of(model: LoadedModel, config: EngineConfig = SMALL, **changes: Any) -> Run:
        run = Run(Engine(model, replace(config, **changes)))
        run._record()
        return run

    def _record(self) -> None:
        runner: Any = self.engine._runner
        original = runner.run

        def recorded(chunks: Any) -> Any:
            output = original(chunks)
            sampled = [chunk.sequence for chunk in chunks if chunk.samples]
            for row, sequence in enumerate(sampled):
                key = (sequence.request.request_id, sequence.index)
                self.logits.setdefault(key, []).append(output.logits[row].cpu())
            return output

        runner.run = recorded

    def step(self) -> list[StepEvent]:
        events = self.engine.step()
        self.engine.check_integrity()
        for event in events:
            if isinstance(event, Paused):
                self.paused.setdefault(event.request_id, []).append(event)
                continue
            key = (event.request_id, event.index)
            assert key not in self.ended, f"{event} came after the end"
            if isinstance(event, TokenOut):
                self.tokens.setdefault(key, []).append(event.token_id)
            else:
                self.ended[key] = event
        return events

    def finish(self, limit: int = 3000) -> Run:
        """Steps until nothing is left to do; every block must be free then."""
        for _ in range(limit):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work
        if not self.engine.stats().paused:
            assert self.engine.stats().blocks_used == 0
        return self


def prefilled(model: LoadedModel, prompt: tuple[int, ...]) -> tuple[KvSnapshot, list[int]]:
    """The KV of a prompt, and the first token behind it."""
    run = Run.of(model)
    policy = PausePolicy(every_tokens=1, hold_kv=True)
    run.engine.add(greedy("p", prompt, 2, pause=policy))
    run.finish()
    snapshot = run.engine.export_kv("p")
    run.engine.cancel("p")
    run.engine.check_integrity()
    return snapshot, run.tokens["p", 0]
