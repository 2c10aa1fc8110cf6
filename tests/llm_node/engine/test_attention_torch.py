"""The torch attention against a loop that is plainly right."""

from __future__ import annotations

import random

import pytest
import torch

from llm_node.engine.attention import AttentionParams, PagedAttention
from llm_node.engine.attention_torch import attend, group_by_length
from llm_node.engine.kv import KvCache, KvLayout, LayerShape
from llm_node.engine.request import EngineRequest, Sequence
from llm_node.engine.runner import gather
from llm_node.engine.scheduler import Chunk

HEADS, KV_HEADS, DIM, VALUE_DIM, SIZE = 6, 2, 8, 5, 4
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def _cache(device: str, blocks: int) -> KvCache:
    shape = LayerShape(KV_HEADS, DIM, VALUE_DIM)
    return KvCache(KvLayout((shape,), torch.float32), blocks, SIZE, torch.device(device))


def _chunks(rng: random.Random, kv: KvCache, lengths: list[tuple[int, int]]) -> list[Chunk]:
    """Sequences with scattered blocks; each (start, count) is its new piece."""
    free = list(range(kv.blocks))
    rng.shuffle(free)
    chunks = []
    for i, (start, count) in enumerate(lengths):
        sequence = Sequence(EngineRequest(str(i), (0,)), 0, i, 0, 999, [0] * (start + count))
        sequence.blocks = [free.pop() for _ in range(-(-(start + count) // SIZE))]
        chunks.append(Chunk(sequence, start, count))
    return chunks


def _expected(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, how: AttentionParams
) -> torch.Tensor:
    """[q, heads, value_dim] of the last q of L tokens, token by token."""
    count, length = query.shape[0], keys.shape[0]
    out = torch.empty(count, HEADS, VALUE_DIM)
    for i in range(count):
        own = length - count + i
        first = 0 if how.window is None else max(0, own - how.window + 1)
        for head in range(HEADS):
            group = head // (HEADS // KV_HEADS)
            scores = keys[first : own + 1, group] @ query[i, head] * how.scale
            if how.softcap is not None:
                scores = how.softcap * torch.tanh(scores / how.softcap)
            out[i, head] = torch.softmax(scores, -1) @ values[first : own + 1, group]
    return out


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("window", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_ragged_batches(device: str, window: int | None, softcap: float | None) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    rng = random.Random(3)
    torch.manual_seed(3)
    kv = _cache(device, 60)
    lengths = [(0, 1), (30, 1), (4, 1), (12, 1), (0, 9), (6, 7), (3, 2), (40, 5), (20, 1)]
    chunks = _chunks(rng, kv, lengths)
    # Memory nobody wrote may hold anything; what was never written must not count.
    kv.keys[0].fill_(float("nan"))
    kv.values[0].fill_(float("nan"))
    history = []
    for chunk in chunks:
        k, v = (
            torch.randn(chunk.start, KV_HEADS, DIM),
            torch.randn(chunk.start, KV_HEADS, VALUE_DIM),
        )
        kv.write(0, kv.slots(chunk.sequence.blocks, chunk.start), k.to(device), v.to(device))
        history.append((k, v))
    batch = gather(chunks, kv.block_tokens).on(kv)
    assert batch.decodes == 4
    total = sum(count for _, count in lengths)
    query = torch.randn(total, HEADS, DIM)
    key, value = torch.randn(total, KV_HEADS, DIM), torch.randn(total, KV_HEADS, VALUE_DIM)
    how = AttentionParams(0, 0.3, window, softcap)
    paged = PagedAttention(batch, attend)
    out = paged.attend(query.to(device), key.to(device), value.to(device), how).cpu()
    begin = 0
    for (k, v), (_, count) in zip(history, lengths, strict=True):
        rows = slice(begin, begin + count)
        keys, values = torch.cat([k, key[rows]]), torch.cat([v, value[rows]])
        expected = _expected(query[rows], keys, values, how)
        assert (out[rows] - expected).abs().max() < 2e-5
        begin += count


def test_groups_hold_everybody_once_with_little_padding() -> None:
    rng = random.Random(5)
    for _ in range(50):
        lengths = [rng.choice([1, 10, 100, 1000]) + rng.randrange(50) for _ in range(20)]
        groups = group_by_length(lengths)
        assert sorted(i for group in groups for i in group) == list(range(20))
        for group in groups:
            real = sum(lengths[i] for i in group)
            assert len(group) * max(lengths[i] for i in group) - real <= 0.25 * real + 64
    assert group_by_length([]) == []
    assert len(group_by_length([300, 310, 320, 290])) == 1
