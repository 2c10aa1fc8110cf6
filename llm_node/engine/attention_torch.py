"""Paged attention with torch's own kernels, for CPU and CUDA tensors alike.

Sequences with one new token are gathered in groups of similar context and
attended to together; longer pieces of a prompt one by one. What does not depend
on the layer is prepared once per step and kept in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from llm_node.engine.attention import AttentionParams
from llm_node.engine.packed import PackedBatch

#: Padding a group may have: a share of its tokens, and some that always pay.
_PADDING_SHARE = 0.25
_PADDING_TOKENS = 64


@dataclass(frozen=True)
class Decodes:
    """A group of single tokens: rows [b], slots [b, L], mask [b, 1, 1, L] or None."""

    rows: torch.Tensor
    slots: torch.Tensor
    mask: torch.Tensor | None


@dataclass(frozen=True)
class _Piece:
    """Tokens begin:end of one sequence: slots [L], mask [q, L]; None is causal."""

    begin: int
    end: int
    slots: torch.Tensor
    mask: torch.Tensor | None


def attend(batch: PackedBatch, query: torch.Tensor, how: AttentionParams) -> torch.Tensor:
    """[T, heads, value_dim] of query [T, heads, dim]; see ``attention.Backend``."""
    if how.window not in batch.plans:
        batch.plans[how.window] = _plan(batch, how.window)
    decodes, pieces = batch.plans[how.window]
    keys, values = batch.kv.keys[how.layer], batch.kv.values[how.layer]
    out = query.new_empty(query.shape[0], query.shape[1], values.shape[2])
    for group in decodes:
        out[group.rows] = decode(query[group.rows], keys, values, group, how)
    for piece in pieces:
        rows = slice(piece.begin, piece.end)
        out[rows] = _extend(query[rows], keys, values, piece, how)
    return out


def decode(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    group: Decodes,
    how: AttentionParams,
) -> torch.Tensor:
    """[b, heads, value_dim]; heads that share a KV head stand where queries do."""
    count, heads, dim = query.shape
    shared = query.reshape(count, keys.shape[1], heads // keys.shape[1], dim)
    k, v = _rows(keys, group.slots).transpose(1, 2), _rows(values, group.slots).transpose(1, 2)
    out = _attention(shared, k, v, group.mask, False, how)
    return out.reshape(count, heads, values.shape[2])


def _rows(pool: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """[*slots, kv_heads, dim]; whole rows are copied, twice as quick as indexing."""
    rows = pool.index_select(0, slots.reshape(-1))
    return rows.view(*slots.shape, *pool.shape[1:])


def _extend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    piece: _Piece,
    how: AttentionParams,
) -> torch.Tensor:
    """[q, heads, value_dim] of one sequence's new tokens."""
    count, heads, dim = query.shape
    kv_heads = keys.shape[1]
    grouped = query.view(count, kv_heads, heads // kv_heads, dim).permute(1, 2, 0, 3)
    k = _rows(keys, piece.slots).transpose(0, 1)[:, None].expand(-1, heads // kv_heads, -1, -1)
    v = _rows(values, piece.slots).transpose(0, 1)[:, None].expand(-1, heads // kv_heads, -1, -1)
    out = _attention(grouped, k, v, piece.mask, piece.mask is None, how)
    return out.permute(2, 0, 1, 3).reshape(count, heads, values.shape[2])


def _attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    how: AttentionParams,
) -> torch.Tensor:
    """[..., q, value_dim] for [..., q, dim] over [..., L, dim]; mask True is seen."""
    if how.softcap is None:
        return scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=causal, scale=how.scale
        )
    scores = (query.float() @ keys.float().transpose(-1, -2)) * how.scale
    scores = how.softcap * torch.tanh(scores / how.softcap)
    if causal:
        side = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        mask = side.tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (torch.softmax(scores, dim=-1) @ values.float()).to(query.dtype)


def _plan(batch: PackedBatch, window: int | None) -> tuple[list[Decodes], list[_Piece]]:
    seen = [context if window is None else min(context, window) for context in batch.contexts]
    decodes = [_gather(batch, group, seen) for group in group_by_length(seen[: batch.decodes])]
    pieces, begin = [], batch.decodes
    for i in range(batch.decodes, len(batch.contexts)):
        end = begin + batch.query_lens[i]
        pieces.append(_piece(batch, i, begin, end, window))
        begin = end
    return decodes, pieces


def group_by_length(lengths: list[int]) -> list[list[int]]:
    """Indices in groups, longest first, with little padding in each."""
    groups: list[list[int]] = []
    longest = total = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        padding = longest * (len(groups[-1]) + 1) - total - lengths[i] if groups else 0
        if not groups or padding > _PADDING_SHARE * (total + lengths[i]) + _PADDING_TOKENS:
            groups.append([])
            longest, total = lengths[i], 0
        groups[-1].append(i)
        total += lengths[i]
    return groups


def _gather(batch: PackedBatch, group: list[int], seen: list[int]) -> Decodes:
    device = batch.kv.device
    longest = seen[group[0]]
    rows = torch.tensor(group, device=device)
    lengths = torch.tensor([seen[i] for i in group], device=device)[:, None]
    ends = batch.context_lens[rows].long()[:, None]
    offset = torch.arange(longest, device=device)[None]
    # Padding repeats the last token: memory nobody wrote could hold NaN.
    places = torch.minimum(ends - lengths + offset, ends - 1)
    size = batch.kv.block_tokens
    blocks = batch.block_tables[rows].long().gather(1, places // size)
    equal = seen[group[-1]] == longest
    mask = None if equal else (offset < lengths)[:, None, None, :]
    return Decodes(rows, blocks * size + places % size, mask)


def _piece(batch: PackedBatch, i: int, begin: int, end: int, window: int | None) -> _Piece:
    device = batch.kv.device
    context, count = batch.contexts[i], end - begin
    start = context - count
    first = 0 if window is None else max(0, start - window + 1)
    places = torch.arange(first, context, device=device)
    size = batch.kv.block_tokens
    slots = batch.block_tables[i].long()[places // size] * size + places % size
    if start == 0 and (window is None or window >= context):
        return _Piece(begin, end, slots, None)
    own = torch.arange(start, context, device=device)[:, None]
    mask = places[None] <= own
    if window is not None:
        mask &= places[None] > own - window
    return _Piece(begin, end, slots, mask)
