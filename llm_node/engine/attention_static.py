"""Attention of single tokens whose shapes depend on the tables' shape alone.

Nothing here reads a value on the host, so a CUDA graph can hold it. It gathers a
whole table per sequence, padding included; ``attention_torch`` gathers less.
"""

from __future__ import annotations

import torch

from llm_node.engine.attention import AttentionParams
from llm_node.engine.attention_torch import Decodes, decode
from llm_node.engine.packed import PackedBatch


def attend(batch: PackedBatch, query: torch.Tensor, how: AttentionParams) -> torch.Tensor:
    """[B, heads, value_dim] of query [B, heads, dim]; see ``attention.Backend``."""
    if how.window not in batch.plans:
        batch.plans[how.window] = _plan(batch, how.window)
    keys, values = batch.kv.keys[how.layer], batch.kv.values[how.layer]
    return decode(query, keys, values, batch.plans[how.window], how)


def _plan(batch: PackedBatch, window: int | None) -> Decodes:
    size = batch.kv.block_tokens
    offsets = torch.arange(size, device=batch.block_tables.device)
    slots = (batch.block_tables.long()[:, :, None] * size + offsets).flatten(1)
    context = batch.context_lens.long()[:, None]
    places = torch.arange(slots.shape[1], device=slots.device)[None]
    seen = places < context
    # Padding repeats the last token: memory nobody wrote could hold NaN.
    slots = torch.where(seen, slots, slots.gather(1, context - 1))
    if window is not None:
        seen = seen & (places >= context - window)
    rows = torch.arange(len(slots), device=slots.device)
    return Decodes(rows, slots, seen[:, None, None, :])
