"""A trial of an attention backend against torch's own, before an engine relies on it."""

from __future__ import annotations

import numpy as np
import torch

from llm_node.engine import attention_torch
from llm_node.engine.attention import AttentionParams, Backend
from llm_node.engine.kv import KvCache, KvLayout, LayerShape
from llm_node.engine.packed import HostBatch, PackedBatch

_BLOCK_TOKENS, _HEADS, _KV_HEADS = 16, 4, 2
#: New tokens and context of each sequence: single tokens, then pieces of prompts.
_QUERY_LENS, _CONTEXTS = (1, 1, 7, 40), (1, 133, 7, 90)
#: What rounding explains, of values of about 1.
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}


def differs(attend: Backend, device: torch.device, layout: KvLayout) -> float | None:
    """The largest difference from torch's attention, None where rounding explains it.

    Every width of K and V that a model has is tried: wide ones need more of a card's
    shared memory.

    Raises:
        Exception: whatever the backend raises.
    """
    for key_dim, value_dim in sorted({(one.key_dim, one.value_dim) for one in layout.layers}):
        shape = LayerShape(_KV_HEADS, key_dim, value_dim)
        difference = _difference(attend, device, KvLayout((shape,), layout.dtype))
        # Not "greater than": NaN is different too.
        if not difference <= _ROUNDING[layout.dtype]:
            return difference
    return None


def _difference(attend: Backend, device: torch.device, layout: KvLayout) -> float:
    batch = _batch(device, layout)
    dim = layout.layers[0].key_dim
    generator = torch.Generator().manual_seed(1)
    shape = (sum(_QUERY_LENS), _HEADS, dim)
    query = torch.randn(shape, generator=generator).to(device, layout.dtype)
    how = AttentionParams(layer=0, scale=dim**-0.5)
    got = attend(batch, query, how).float()
    wanted = attention_torch.attend(batch, query, how).float()
    return float((got - wanted).abs().max())


def _batch(device: torch.device, layout: KvLayout) -> PackedBatch:
    """A cache full of random numbers and a step over it, in scattered blocks."""
    needed = [-(-context // _BLOCK_TOKENS) for context in _CONTEXTS]
    kv = KvCache(layout, sum(needed), _BLOCK_TOKENS, device)
    generator = torch.Generator().manual_seed(2)
    for pool in (kv.keys[0], kv.values[0]):
        pool.copy_(torch.randn(pool.shape, generator=generator))
    order = np.arange(sum(needed), dtype=np.int32)[::-1]
    tables = np.zeros((len(needed), max(needed)), dtype=np.int32)
    for i, count in enumerate(needed):
        tables[i, :count] = order[sum(needed[:i]) :][:count]
    tokens = sum(_QUERY_LENS)
    zeros = np.zeros(tokens, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(_QUERY_LENS)]).astype(np.int32)
    return HostBatch(
        token_ids=zeros,
        positions=zeros,
        slots=zeros,
        query_starts=starts,
        context_lens=np.array(_CONTEXTS, dtype=np.int32),
        block_tables=tables,
        sample_rows=np.zeros(0, dtype=np.int64),
        decodes=sum(1 for count in _QUERY_LENS if count == 1),
        query_lens=_QUERY_LENS,
        contexts=_CONTEXTS,
    ).on(kv)
