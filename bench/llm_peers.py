"""transformers' own ways to generate, on the same requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.llm_model import Job


@dataclass(frozen=True)
class Outcome:
    """What one contestant did.

    Attributes:
        tokens: generated ids per request, as many as it asked for.
        wall_s: from the first request to the last token.
        cpu_s: processor time of all threads meanwhile.
    """

    tokens: tuple[tuple[int, ...], ...]
    wall_s: float
    cpu_s: float

    @property
    def tokens_per_s(self) -> float:
        return sum(len(ids) for ids in self.tokens) / self.wall_s


def load_reference(directory: Path, implementation: str = "sdpa") -> Any:
    """transformers' model of a checkpoint."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    return loader.from_pretrained(
        str(directory), dtype="auto", attn_implementation=implementation
    ).eval()


def padded_batches(model: Any, work: Sequence[Job], size: int, static: bool) -> Outcome:
    """``generate`` on batches in the order of arrival, padded on the left.

    A batch runs until its longest answer is done; what others get beyond their own
    length is thrown away.
    """
    import torch

    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    found: list[tuple[int, ...]] = []
    for first in range(0, len(work), size):
        batch = work[first : first + size]
        longest = max(len(job.prompt) for job in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, job in enumerate(batch):
            ids[row, longest - len(job.prompt) :] = torch.tensor(job.prompt)
            mask[row, longest - len(job.prompt) :] = 1
        output = max(job.output for job in batch)
        options = {"cache_implementation": "static", "disable_compile": True} if static else {}
        with torch.inference_mode():
            done = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=output,
                do_sample=False,
                **options,
            )
        for row, job in enumerate(batch):
            found.append(tuple(done[row, longest : longest + job.output].tolist()))
    return Outcome(
        tuple(found), time.perf_counter() - started_s, time.process_time() - started_cpu_s
    )


@dataclass(frozen=True)
class ContinuousSetting:
    """One configuration of transformers' continuous batching."""

    implementation: str
    page_size: int
    num_blocks: int
    max_batch_tokens: int


def continuous(directory: Path, work: Sequence[Job], setting: ContinuousSetting) -> Outcome:
    """transformers' continuous batching, all requests at the start, run to the end."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    model = load_reference(directory, setting.implementation)
    config = ContinuousBatchingConfig(
        page_size=setting.page_size,
        num_blocks=setting.num_blocks,
        max_batch_tokens=setting.max_batch_tokens,
        use_cuda_graph=False,
        auto_switch_to_flash=False,
    )
    settings: Any = GenerationConfig
    generation = settings(do_sample=False, eos_token_id=-1, pad_token_id=0)
    manager = model.init_continuous_batching(
        generation_config=generation, continuous_batching_config=config
    )
    manager.start()
    try:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        names = [manager.add_request(list(job.prompt), max_new_tokens=job.output) for job in work]
        found: dict[str, tuple[int, ...]] = {}
        while len(found) < len(names):
            result = manager.get_result(timeout=1.0)
            if result is not None and result.is_finished():
                found[result.request_id] = tuple(result.generated_tokens)
            if not manager.is_running():
                raise RuntimeError(f"it stopped with {len(found)} of {len(names)} requests done")
        wall_s = time.perf_counter() - started_s
        cpu_s = time.process_time() - started_cpu_s
    finally:
        manager.stop(block=True)
    return Outcome(tuple(found[name] for name in names), wall_s, cpu_s)
