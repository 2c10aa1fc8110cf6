"""What the engine is told at start; nothing here changes afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ragschema.errors import InvalidInput

DTYPES = ("auto", "float32", "bfloat16", "float16")
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class EngineConfig:
    """One engine.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: of weights and KV; ``auto`` takes the checkpoint's own.
        block_tokens: tokens of one KV block, the unit of allocation and reuse.
        kv_bytes: memory of the KV cache; None takes a share of what is free once
            the weights are loaded, and no more than ``max_running`` requests of
            the maximum can use.
        max_tokens_per_request: prompt and answer together; None is the model's context.
        max_running: sequences that are in the batch at once.
        step_tokens: tokens of one forward pass, prompts and answers together.
        prefill_chunk: prompt tokens of one forward pass while some sequence is
            decoding, so that its next token does not wait for long prompts.
        prefix_reuse: keep the KV of finished prompts and use it again.
        cuda_graphs: replay recorded decode steps on a GPU instead of launching every kernel.
        compile_steps: fuse a recorded decode step's kernels first; the start takes a
            minute or more longer.
        threads: CPU threads of one forward pass; None leaves torch's own setting.
    """

    device: str = "cpu"
    dtype: str = "auto"
    block_tokens: int = 16
    kv_bytes: int | None = None
    max_tokens_per_request: int | None = None
    max_running: int = 32
    step_tokens: int = 512
    prefill_chunk: int = 48
    prefix_reuse: bool = True
    cuda_graphs: bool = False
    compile_steps: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise InvalidInput(
                f"{self.device!r} is no device", field="device", hint="use cpu, cuda or cuda:N"
            )
        if self.dtype not in DTYPES:
            raise InvalidInput(
                f"{self.dtype!r} is no dtype", field="dtype", hint=f"use one of {', '.join(DTYPES)}"
            )
        for name in ("block_tokens", "max_running", "step_tokens", "prefill_chunk"):
            _positive(name, getattr(self, name))
        for name in ("kv_bytes", "max_tokens_per_request", "threads"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        if self.cuda_graphs and self.device == "cpu":
            raise InvalidInput(
                "there are no CUDA graphs on a CPU", field="cuda_graphs", hint="use device cuda"
            )
        if self.compile_steps and not self.cuda_graphs:
            raise InvalidInput(
                "only recorded steps are compiled", field="compile_steps", hint="set cuda_graphs"
            )
        if self.step_tokens < self.max_running:
            raise InvalidInput(
                f"{self.step_tokens} tokens are less than one for each of {self.max_running}"
                " running sequences",
                field="step_tokens",
                hint="raise step_tokens or lower max_running",
            )


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise InvalidInput(f"{value} is not positive", field=name, hint="use 1 or more")
