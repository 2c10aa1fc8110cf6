"""Paged attention on a GPU by the kernels of ``paged_kernels``.

Single tokens share one launch, with as many splits of their context as keep the GPU
busy; pieces of prompts share another. Nothing is gathered or padded, and the shapes of
a step of single tokens depend on its tables alone, so that a CUDA graph can hold it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from llm_node.engine import paged_kernels
from llm_node.engine.attention import AttentionParams
from llm_node.engine.graphs import power_of_two
from llm_node.engine.packed import PackedBatch

#: Programs that keep a large GPU busy (an H200 has 132 multiprocessors).
_PROGRAMS = 256
#: Splits beyond this cost more to join than they save.
_MOST_SPLITS = 64
#: Tokens beyond which one program would be what everybody waits for.
_MOST_TOKENS = 4096
#: Query tokens times heads of a tile: what a matrix unit takes at least, for single tokens
#: and for float32, which it does not take; and more, for pieces of prompts.
_FEW_ROWS, _MANY_ROWS = 16, 64
#: Tokens of K and V at a time, and bytes of their rows beyond which half of them.
_TOKENS, _WIDE_BYTES = 64, 256


@dataclass(frozen=True)
class _Launch:
    """What a kernel's programs are.

    Attributes:
        tiles: int32 [n, 2], sequence and first token of each; None for the single tokens.
        count: of tiles.
        rows: query tokens times heads of each, a power of two.
        splits: of what each sees, a power of two.
    """

    tiles: torch.Tensor | None
    count: int
    rows: int
    splits: int


def attend(batch: PackedBatch, query: torch.Tensor, how: AttentionParams) -> torch.Tensor:
    """[T, heads, value_dim] of query [T, heads, dim]; see ``attention.Backend``."""
    keys, values = batch.kv.keys[how.layer], batch.kv.values[how.layer]
    key = ("tiles", query.shape[1], keys.shape[1])
    if key not in batch.plans:
        few = query.dtype == torch.float32
        rows = _rows(query.shape[1] // keys.shape[1], _FEW_ROWS if few else _MANY_ROWS)
        batch.plans[key] = _plan(batch, query.shape[1] // keys.shape[1], keys.shape[1], rows)
    out = query.new_empty(query.shape[0], query.shape[1], values.shape[2])
    for launch in batch.plans[key]:
        _run(batch, query, out, launch, how)
    return out


def _plan(batch: PackedBatch, group: int, kv_heads: int, piece_rows: int) -> list[_Launch]:
    launches = []
    if batch.decodes:
        programs = batch.decodes * kv_heads
        longest = batch.block_tables.shape[1] * batch.kv.block_tokens
        launches.append(
            _Launch(None, batch.decodes, _rows(group, _FEW_ROWS), splits(programs, longest))
        )
    if batch.decodes < len(batch.query_lens):
        found = tiles_of(batch.query_lens, batch.decodes, piece_rows // group)
        on_device = torch.tensor(found, dtype=torch.int32).to(batch.kv.device, non_blocking=True)
        launches.append(_Launch(on_device, len(found), piece_rows, 1))
    return launches


def splits(programs: int, tokens: int) -> int:
    """A power of two, so that there are enough programs with enough tokens each."""
    busy = max(_PROGRAMS // programs, tokens // _MOST_TOKENS)
    wanted = min(busy, tokens // _TOKENS, _MOST_SPLITS)
    return 1 << max(wanted, 1).bit_length() - 1


def tiles_of(query_lens: tuple[int, ...], first: int, queries: int) -> list[tuple[int, int]]:
    """(sequence, first token) of tiles of ``queries`` tokens, from sequence ``first`` on.

    The last tiles of a prompt see most, so they come first.
    """
    return [
        (sequence, offset)
        for sequence in range(first, len(query_lens))
        for offset in reversed(range(0, query_lens[sequence], queries))
    ]


def _rows(group: int, least: int) -> int:
    return max(least, power_of_two(group))


def _run(
    batch: PackedBatch,
    query: torch.Tensor,
    out: torch.Tensor,
    launch: _Launch,
    how: AttentionParams,
) -> None:
    """Fills the rows of ``out`` that a launch is for."""
    heads, value_dim = out.shape[1:]
    if launch.splits == 1:
        _attend(batch, query, out, out, launch, how)
        return
    lines = (launch.count, heads, launch.splits)
    parts = torch.empty((*lines, value_dim), dtype=torch.float32, device=out.device)
    sums = torch.empty(lines, dtype=torch.float32, device=out.device)
    _attend(batch, query, parts, sums, launch, how)
    paged_kernels.combine[(launch.count * heads,)](
        out,
        parts,
        sums,
        VALUE_DIM=value_dim,
        SPLITS=launch.splits,
        VALUE_LANES=_lanes(value_dim),
        num_warps=1 if launch.splits < 16 else 4,
    )


def _attend(
    batch: PackedBatch,
    query: torch.Tensor,
    out: torch.Tensor,
    sums: torch.Tensor,
    launch: _Launch,
    how: AttentionParams,
) -> None:
    keys, values = batch.kv.keys[how.layer], batch.kv.values[how.layer]
    dim, value_dim = keys.shape[2], values.shape[2]
    wide = max(dim, value_dim) * keys.element_size() > _WIDE_BYTES
    if query.stride(2) != 1:
        query = query.contiguous()
    paged_kernels.attend_tiles[(launch.count, keys.shape[1], launch.splits)](
        out,
        sums,
        query,
        keys,
        values,
        batch.block_tables,
        batch.context_lens,
        batch.query_starts,
        batch.query_starts if launch.tiles is None else launch.tiles,
        query.stride(0),
        query.stride(1),
        batch.block_tables.stride(0),
        SCALE=how.scale,
        CAP=how.softcap or 0.0,
        HEADS=query.shape[1],
        KV_HEADS=keys.shape[1],
        DIM=dim,
        VALUE_DIM=value_dim,
        BLOCK_TOKENS=batch.kv.block_tokens,
        WINDOW=how.window or 0,
        SINGLE=launch.tiles is None,
        SPLITS=launch.splits,
        ROWS=launch.rows,
        TOKENS=_TOKENS // 2 if wide else _TOKENS,
        DIM_LANES=_lanes(dim),
        VALUE_LANES=_lanes(value_dim),
        # The matrix units' short float32 would miss the model's logits by 1e-3.
        PRECISION="ieee",
        num_warps=4,
        num_stages=2,
    )


def _lanes(dim: int) -> int:
    """A power of two, and no less than a matrix unit takes."""
    return max(16, power_of_two(dim))
