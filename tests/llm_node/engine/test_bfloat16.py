"""A model in bfloat16 on the CPU: as near to exact arithmetic as transformers' own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_node.engine.attention_torch import attend
from llm_node.engine.config import EngineConfig
from llm_node.engine.kernels import kernels_for
from llm_node.engine.linear import NativeLinear
from llm_node.engine.load import load_model
from llm_node.native.loader import native
from tests.llm_node.engine.families import save_family
from tests.llm_node.engine.harness import Run, greedy, prompt_of

PROMPTS = [prompt_of(seed, tokens) for seed, tokens in ((1, 3), (2, 20), (3, 45))]
CONFIG = EngineConfig(
    dtype="bfloat16", block_tokens=4, max_tokens_per_request=128, max_running=8, step_tokens=64
)


def _reference(directory: Path, dtype: torch.dtype, ids: list[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    model = loader.from_pretrained(str(directory), dtype=torch.bfloat16).to(dtype).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0, -1].double()
    return logits


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_logits_are_as_near_as_transformers(tmp_path: Path, family: str) -> None:
    """Together, in chunks, and while the others decode."""
    directory = save_family(tmp_path, family)
    run = Run.of(load_model(directory, CONFIG), CONFIG, prefill_chunk=7)
    for number, prompt in enumerate(PROMPTS):
        run.engine.add(greedy(str(number), prompt, 6))
    run.finish()
    ours, theirs = [], []
    for number, prompt in enumerate(PROMPTS):
        for place, found in enumerate(run.logits[str(number), 0]):
            ids = [*prompt, *run.tokens[str(number), 0][:place]]
            exact = _reference(directory, torch.float64, ids)
            ours.append(float((found.double() - exact).abs().mean()))
            other = _reference(directory, torch.bfloat16, ids)
            theirs.append(float((other - exact).abs().mean()))
    assert len(ours) == 18
    assert sum(ours) <= 1.2 * sum(theirs)
    assert max(ours) <= 2 * max(theirs)


def test_the_kernels_serve_it(tmp_path: Path) -> None:
    if native() is None:
        pytest.skip("the extension was not built")
    model = load_model(save_family(tmp_path, "llama"), CONFIG)
    linear = [m for m in model.module.modules() if isinstance(m, NativeLinear)]
    assert linear
    assert {m.weight.dtype for m in linear} == {torch.bfloat16}
    assert kernels_for(model.device, model.layout).attend is not attend
    halves = replace(model.layout, dtype=torch.float16)
    assert kernels_for(model.device, halves).attend is attend
