"""Paged attention by the compiled kernels on the CPU, K and V read in place.

In float32, or over K and V in bfloat16, which are widened in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from llm_node.engine.attention import AttentionParams
from llm_node.engine.linear import bits_of
from llm_node.engine.packed import PackedBatch

#: Key of the prepared batch in ``PackedBatch.plans``.
_PLAN = "native"


def backend(
    module: ModuleType, isa: str | None = None
) -> Callable[[PackedBatch, torch.Tensor, AttentionParams], torch.Tensor]:
    """An ``attention.Backend`` over ``native.loader.native()``.

    Args:
        isa: a code path, for tests; None is the machine's best.
    """

    def attend(batch: PackedBatch, query: torch.Tensor, how: AttentionParams) -> torch.Tensor:
        plan = batch.plans.get(_PLAN)
        if plan is None:
            plan = batch.plans[_PLAN] = _plan(module, batch)
        keys, values = batch.kv.keys[how.layer], batch.kv.values[how.layer]
        out = torch.empty(query.shape[0], query.shape[1], values.shape[2])
        plan.attend(
            query.float().numpy(),
            bits_of(keys),
            bits_of(values),
            out.numpy(),
            scale=how.scale,
            window=how.window,
            softcap=how.softcap,
            threads=torch.get_num_threads(),
            isa=isa,
        )
        return out.to(keys.dtype)

    return attend


def _plan(module: ModuleType, batch: PackedBatch) -> Any:
    return module.Batch(
        batch.query_starts.numpy(),
        batch.context_lens.numpy(),
        batch.block_tables.numpy(),
        batch.kv.block_tokens,
        batch.kv.blocks,
    )
