# Triton reads annotations as code of the kernel, so only its own are there.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""Attention over blocks of the KV cache in Triton, which torch's CUDA wheels bring along.

K and V are read where they lie, once for all heads that share a KV head. A program
takes a *tile*: some consecutive new tokens of one sequence times the heads of one KV
head, and a share (*split*) of the tokens they see, with a running softmax (Dao,
FlashAttention-2, arXiv 2307.08691). Splits of a tile are joined by ``combine``.

Imported where Triton is; nothing else of the engine needs it.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend_tiles(
    out, sums, query, keys, values, tables, context_lens, query_starts, tiles,
    query_token, query_head, table_row, SCALE: tl.constexpr, CAP: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, WINDOW: tl.constexpr,
    SINGLE: tl.constexpr, SPLITS: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
    DIM_LANES: tl.constexpr, VALUE_LANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Programs (tile, KV head, split).

    Args:
        out: [T, heads, value_dim]; of several splits float32 [T, heads, splits, value_dim].
        sums: of several splits float32 [T, heads, splits], log2 of the sums of weights.
        query: [T, heads, dim] with steps ``query_token`` and ``query_head``.
        keys, values: [slots, kv_heads, dim], contiguous.
        tables: int32, rows of blocks, ``table_row`` apart.
        tiles: int32 [tiles, 2] of sequence and first token; of SINGLE, tile i is the only
            new token of sequence i.
        SCALE, CAP: of scores, no cap is 0; constants, lest a compiler take them for float64.
        WINDOW: tokens a token sees; 0 for all.
        ROWS: query tokens times heads of a tile, a power of two.
        TOKENS: of K and V at a time.
    """
    kv_head = tl.program_id(1)
    GROUP: tl.constexpr = HEADS // KV_HEADS
    QUERIES: tl.constexpr = ROWS // GROUP
    sequence, offset = _tile(tiles, SINGLE)
    begin = tl.load(query_starts + sequence)
    count = tl.load(query_starts + sequence + 1) - begin
    context = tl.load(context_lens + sequence)
    table = tables + sequence * table_row

    row = tl.arange(0, ROWS)
    place = offset + row // GROUP
    head = kv_head * GROUP + row % GROUP
    used = (row // GROUP < QUERIES) & (place < count)
    own = context - count + place
    token = (begin + place).to(tl.int64)
    q = _rows(query, token * query_token + head * query_head, used, DIM, DIM_LANES)

    start, stop = _share(context, context - count + offset, QUERIES, WINDOW, SPLITS, TOKENS)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, VALUE_LANES], tl.float32)
    for at in range(start, stop, TOKENS):
        seen = at + tl.arange(0, TOKENS)
        written = seen < stop
        block = tl.load(table + seen // BLOCK_TOKENS, mask=written, other=0).to(tl.int64)
        line = (block * BLOCK_TOKENS + seen % BLOCK_TOKENS) * KV_HEADS + kv_head
        k = _rows(keys, line * DIM, written, DIM, DIM_LANES)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * SCALE
        if CAP > 0:  # cap * tanh(scores / cap)
            scores = CAP * (2.0 * tl.sigmoid(scores * (2.0 / CAP)) - 1.0)
        scores = _hide(scores, seen, own, written, WINDOW)
        best, keep, weights = _weigh(scores, best)
        total = total * keep + tl.sum(weights, 1)
        v = _rows(values, line * VALUE_DIM, written, VALUE_DIM, VALUE_LANES)
        mixed = mixed * keep[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
    line = token * HEADS + head
    _store(out, sums, mixed, best, total, line, used, VALUE_DIM, VALUE_LANES, SPLITS)


@triton.jit
def _tile(tiles, SINGLE: tl.constexpr):
    """Sequence and first token of this program's tile."""
    tile = tl.program_id(0)
    if SINGLE:
        sequence, offset = tile, 0
    else:
        sequence, offset = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    return sequence, offset


@triton.jit
def _share(
    context, oldest,
    QUERIES: tl.constexpr, WINDOW: tl.constexpr, SPLITS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """From where to where of what a tile sees this program goes, in whole steps."""
    first = 0
    if WINDOW > 0:
        first = tl.maximum(oldest - WINDOW + 1, 0)
    last = tl.minimum(context, oldest + QUERIES)
    share = tl.cdiv(tl.cdiv(last - first, SPLITS), TOKENS) * TOKENS
    start = first + tl.program_id(2) * share
    return start, tl.minimum(start + share, last)


@triton.jit
def _rows(pool, starts, used, DIM: tl.constexpr, LANES: tl.constexpr):
    """Rows of DIM numbers, 0 where not used: memory that nobody wrote may hold NaN."""
    lane = tl.arange(0, LANES)
    mask = used[:, None] & (lane < DIM)[None, :]
    return tl.load(pool + starts[:, None] + lane[None, :], mask=mask, other=0.0)


@triton.jit
def _hide(scores, seen, own, written, WINDOW: tl.constexpr):
    """Minus infinity for tokens that a row does not see; the others times log2(e)."""
    visible = written[None, :] & (seen[None, :] <= own[:, None])
    if WINDOW > 0:
        visible = visible & (seen[None, :] > own[:, None] - WINDOW)
    return tl.where(visible, scores * 1.4426950408889634, float("-inf"))


@triton.jit
def _weigh(scores, best):
    """The best score by now, what the weights before it become, and the new weights."""
    better = tl.maximum(best, tl.max(scores, 1))
    # A row that has seen nothing yet must not subtract infinity from itself.
    base = tl.where(better == float("-inf"), 0.0, better)
    return better, tl.exp2(best - base), tl.exp2(scores - base[:, None])


@triton.jit
def _store(
    out, sums, mixed, best, total, line, used,
    VALUE_DIM: tl.constexpr, VALUE_LANES: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """A tile's result, or that of one of its splits."""
    lane = tl.arange(0, VALUE_LANES)
    mask = used[:, None] & (lane < VALUE_DIM)[None, :]
    # Rows that saw nothing: nothing, with weights whose sum's logarithm is minus infinity.
    total = tl.where(total == 0.0, 1.0, total)
    if SPLITS > 1:
        line = line * SPLITS + tl.program_id(2)
        tl.store(sums + line, best + tl.log2(total), mask=used)
    where = out + line[:, None] * VALUE_DIM + lane[None, :]
    tl.store(where, (mixed / total[:, None]).to(out.dtype.element_ty), mask=mask)


@triton.jit
def combine(
    out, parts, sums, VALUE_DIM: tl.constexpr, SPLITS: tl.constexpr, VALUE_LANES: tl.constexpr
):
    """Joins the splits of one token's head; programs (token * heads + head).

    Args:
        out: [T, heads, value_dim].
        parts: float32 [T, heads, splits, value_dim], of each split by itself.
        sums: float32 [T, heads, splits], log2 of the sums of weights.
    """
    line = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS)
    lane = tl.arange(0, VALUE_LANES)
    size = tl.load(sums + line * SPLITS + split)
    weight = tl.exp2(size - tl.max(size, 0))
    part = _rows(parts, (line * SPLITS + split) * VALUE_DIM, split >= 0, VALUE_DIM, VALUE_LANES)
    mixed = tl.sum(part * weight[:, None], 0) / tl.sum(weight, 0)
    where = out + line * VALUE_DIM + lane
    tl.store(where, mixed.to(out.dtype.element_ty), mask=lane < VALUE_DIM)
