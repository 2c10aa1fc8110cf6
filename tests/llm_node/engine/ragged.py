"""Steps over ragged sequences, and attention to them by a loop that is plainly right."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from llm_node.engine.attention import AttentionParams, Backend, PagedAttention
from llm_node.engine.kv import KvCache, KvLayout, LayerShape
from llm_node.engine.request import EngineRequest, Sequence
from llm_node.engine.runner import gather
from llm_node.engine.scheduler import Chunk


@dataclass(frozen=True)
class Shape:
    """Of a layer and its cache."""

    heads: int = 6
    kv_heads: int = 2
    dim: int = 8
    value_dim: int = 5
    block_tokens: int = 4
    dtype: torch.dtype = torch.float32


#: (tokens computed before, new ones) of each sequence; single tokens first.
MIXED = ((0, 1), (30, 1), (4, 1), (12, 1), (0, 9), (6, 7), (3, 2), (40, 5), (20, 1))


def largest_error(
    attend: Backend,
    how: AttentionParams,
    device: str = "cpu",
    shape: Shape = Shape(),
    lengths: tuple[tuple[int, int], ...] = MIXED,
) -> float:
    """Of a backend's attention to a step whose cache holds NaN wherever nobody wrote."""
    torch.manual_seed(3)
    layer = LayerShape(shape.kv_heads, shape.dim, shape.value_dim)
    size = shape.block_tokens
    blocks = sum(-(-(start + count) // size) for start, count in lengths) + 3
    kv = KvCache(KvLayout((layer,), shape.dtype), blocks, size, torch.device(device))
    chunks = _chunks(kv, lengths)
    # What was never written must not count, whatever it holds.
    kv.keys[0].fill_(float("nan"))
    kv.values[0].fill_(float("nan"))
    made = [_random(shape, start + count) for start, count in lengths]
    for chunk, (_, keys, values) in zip(chunks, made, strict=True):
        slots = kv.slots(chunk.sequence.blocks, chunk.start)
        kv.write(0, slots, keys[: chunk.start].to(device), values[: chunk.start].to(device))
    new = [
        tuple(one[start:].to(device) for one in tensors)
        for tensors, (start, _) in zip(made, lengths, strict=True)
    ]
    query, key, value = (torch.cat(parts) for parts in zip(*new, strict=True))
    batch = gather(chunks, size).on(kv)
    out = PagedAttention(batch, attend).attend(query, key, value, how).cpu().float()
    wanted = torch.cat(
        [
            _expected(q[start:], k, v, how)
            for (q, k, v), (start, _) in zip(made, lengths, strict=True)
        ]
    )
    assert out.shape == wanted.shape
    return float((out - wanted).abs().max())


def _random(shape: Shape, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.randn(tokens, shape.heads, shape.dim).to(shape.dtype),
        torch.randn(tokens, shape.kv_heads, shape.dim).to(shape.dtype),
        torch.randn(tokens, shape.kv_heads, shape.value_dim).to(shape.dtype),
    )


def _chunks(kv: KvCache, lengths: tuple[tuple[int, int], ...]) -> list[Chunk]:
    """Sequences with scattered blocks."""
    free = list(range(kv.blocks))
    random.Random(3).shuffle(free)
    chunks = []
    for i, (start, count) in enumerate(lengths):
        sequence = Sequence(EngineRequest(str(i), (0,)), 0, i, 0, 9999, [0] * (start + count))
        needed = -(-(start + count) // kv.block_tokens)
        sequence.blocks = [free.pop() for _ in range(needed)]
        chunks.append(Chunk(sequence, start, count))
    return chunks


def _expected(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, how: AttentionParams
) -> torch.Tensor:
    """[q, heads, value_dim] of the last q of L tokens, token by token."""
    query, keys, values = query.float(), keys.float(), values.float()
    count, length, heads = query.shape[0], keys.shape[0], query.shape[1]
    out = torch.empty(count, heads, values.shape[2])
    for i in range(count):
        own = length - count + i
        first = 0 if how.window is None else max(0, own - how.window + 1)
        for head in range(heads):
            group = head // (heads // keys.shape[1])
            scores = keys[first : own + 1, group] @ query[i, head] * how.scale
            if how.softcap is not None:
                scores = how.softcap * torch.tanh(scores / how.softcap)
            out[i, head] = torch.softmax(scores, -1) @ values[first : own + 1, group]
    return out
