"""Tokens and logits equal transformers' own, for every family, however they are computed.

The tests of a GPU need torch, transformers and pytest alone:
``python -m pytest --noconftest -c /dev/null -m gpu tests/llm_node/engine/test_families.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_node.engine.config import EngineConfig
from llm_node.engine.load import LoadedModel, load_model
from tests.llm_node.engine.families import FAMILIES, save_family
from tests.llm_node.engine.harness import Run, greedy, kv_bytes, prompt_of

TOLERANCE = 1e-4
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Family:
    """A checkpoint as the engine loads it, and as transformers does."""

    def __init__(self, directory: Path, family: str, device: str) -> None:
        from transformers import AutoModelForCausalLM

        save_family(directory, family)
        self.model: LoadedModel = load_model(directory, EngineConfig(device=device))
        loader: Any = AutoModelForCausalLM
        # In float64: with weights this large two orders of the same float32 sums may
        # differ by the tolerance alone.
        self.reference = loader.from_pretrained(
            str(directory),
            dtype=torch.float64,
            attn_implementation="eager",
            experts_implementation="eager",
        )
        self.reference = self.reference.to(device).eval()

    def check(self, run: Run, request_id: str, prompt: tuple[int, ...], index: int = 0) -> None:
        """Every token is transformers' best, every logit within the tolerance.

        One pass over prompt and answer is enough: when each token is the best
        behind those before it, greedy decoding gives the same answer.
        """
        tokens = run.tokens[request_id, index]
        ids = torch.tensor([[*prompt, *tokens[:-1]]], device=self.model.device)
        with torch.inference_mode():
            expected = self.reference(ids, use_cache=False).logits[0, len(prompt) - 1 :].cpu()
        assert tokens == expected.argmax(dim=-1).tolist()
        got = torch.stack(run.logits[request_id, index])
        assert (got - expected).abs().max() <= TOLERANCE


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return str(request.param)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest, device: str) -> Iterator[Family]:
    with tempfile.TemporaryDirectory() as directory:
        yield Family(Path(directory), request.param, device)


def test_alone(family: Family) -> None:
    for tokens in (1, 3, 4, 5, 50):
        prompt = prompt_of(tokens, tokens)
        run = Run.of(family.model)
        run.engine.add(greedy("a", prompt, 12))
        run.finish()
        assert len(run.tokens["a", 0]) == 12
        family.check(run, "a", prompt)


def test_inside_a_changing_batch(family: Family) -> None:
    run = Run.of(family.model)
    prompts = {str(n): prompt_of(n, 1 + 9 * n) for n in range(7)}
    sizes = set()
    for n, (request_id, prompt) in enumerate(prompts.items()):
        run.engine.add(greedy(request_id, prompt, 6 + 3 * (n % 3)))
        run.step()
        sizes.add(run.engine.stats().running)
    run.finish()
    assert max(sizes) > 3
    for request_id, prompt in prompts.items():
        family.check(run, request_id, prompt)


def test_in_chunks_beside_decoding(family: Family) -> None:
    run = Run.of(family.model, prefill_chunk=5, step_tokens=8)
    first, long = prompt_of(1, 6), prompt_of(2, 61)
    run.engine.add(greedy("first", first, 30))
    run.step()
    run.engine.add(greedy("long", long, 5))
    run.finish()
    assert run.engine.stats().steps >= 1 + 61 // 5
    family.check(run, "first", first)
    family.check(run, "long", long)


def test_after_preemption(family: Family) -> None:
    config = EngineConfig(block_tokens=4, max_tokens_per_request=48, prefix_reuse=False)
    run = Run.of(family.model, config, kv_bytes=kv_bytes(family.model, config, 13))
    prompts = {str(n): prompt_of(n, 14) for n in range(3)}
    for request_id, prompt in prompts.items():
        run.engine.add(greedy(request_id, prompt, 20))
    run.finish()
    assert run.engine.stats().preempted > 0
    for request_id, prompt in prompts.items():
        # A preempted sequence computes its last position again, and samples once.
        family.check(run, request_id, prompt)


def test_with_a_reused_prefix(family: Family) -> None:
    run = Run.of(family.model)
    shared = prompt_of(5, 32)
    prompts = {str(n): (*shared, *prompt_of(n, 7)) for n in range(3)}
    for request_id, prompt in prompts.items():
        run.engine.add(greedy(request_id, prompt, 8))
        run.finish()
    assert run.engine.stats().prefix_hit_tokens == 2 * 32
    assert [e.cached_tokens for e in run.ended.values()] == [0, 32, 32]
    for request_id, prompt in prompts.items():
        family.check(run, request_id, prompt)


def test_several_answers_share_the_prompt(family: Family) -> None:
    from dataclasses import replace

    run = Run.of(family.model, prefix_reuse=False)
    prompt = prompt_of(9, 41)
    request = greedy("n", prompt, 6)
    run.engine.add(replace(request, sampling=replace(request.sampling, n=3)))
    run.finish()
    # 40 tokens are shared; each of the others computes the last one for itself.
    assert run.engine.stats().computed_tokens == 41 + 2 + 3 * 5
    for index in range(3):
        family.check(run, "n", prompt, index)
