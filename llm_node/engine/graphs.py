"""Decode steps of fixed shapes, recorded once as CUDA graphs and replayed.

A step in which every sequence has a single token is padded to the next shape of
a small set. Rows of padding read and write the cache's scratch slot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from llm_node.engine.kv import KvCache
from llm_node.engine.packed import PackedBatch

#: (logits [n, vocabulary], hidden [n, hidden]) of a batch.
Outputs = tuple[torch.Tensor, torch.Tensor]
Forward = Callable[[PackedBatch], Outputs]
#: Runs something now, and returns what runs it again over the same memory.
Record = Callable[[Callable[[], Outputs]], Callable[[], Outputs]]


@dataclass(frozen=True)
class _Recorded:
    batch: PackedBatch
    replay: Callable[[], Outputs]


class DecodeGraphs:
    """Recorded steps by (sequences, blocks per sequence), both powers of two.

    Args:
        forward: the model over a batch, without reading values on the host.
        record: ``record_cuda``, or another for tests.
    """

    def __init__(self, forward: Forward, kv: KvCache, record: Record) -> None:
        self._forward = forward
        self._kv = kv
        self._record = record
        self._recorded: dict[tuple[int, int], _Recorded] = {}

    def run(self, batch: PackedBatch) -> Outputs | None:
        """The step's outputs, valid until the next; None when the shape is not for graphs."""
        count, width = batch.block_tables.shape
        if batch.decodes != count or len(batch.sample_rows) != count:
            return None
        key = (power_of_two(count), power_of_two(width))
        recorded = self._recorded.get(key)
        if recorded is None:
            recorded = self._make(batch, *key)
            self._recorded[key] = recorded
        else:
            _fill(recorded.batch, batch)
        logits, hidden = recorded.replay()
        return logits[:count], hidden[:count]

    def _make(self, batch: PackedBatch, count: int, width: int) -> _Recorded:
        static = _empty(self._kv, count, width)
        _fill(static, batch)

        def forward() -> Outputs:
            static.plans.clear()
            return self._forward(static)

        return _Recorded(static, self._record(forward))


def power_of_two(number: int) -> int:
    """The smallest one that is not below a positive number."""
    return 1 << (number - 1).bit_length()


def _empty(kv: KvCache, count: int, width: int) -> PackedBatch:
    def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=kv.device)

    return PackedBatch(
        kv=kv,
        token_ids=zeros(count),
        positions=zeros(count),
        slots=zeros(count),
        query_starts=torch.arange(count + 1, dtype=torch.int32, device=kv.device),
        context_lens=zeros(count, dtype=torch.int32),
        block_tables=zeros(count, width, dtype=torch.int32),
        sample_rows=torch.arange(count, device=kv.device),
        decodes=count,
        query_lens=(1,) * count,
        contexts=(),
    )


def _fill(static: PackedBatch, batch: PackedBatch) -> None:
    """Copies a batch into the recorded memory; what is left over is padding."""
    count, width = batch.block_tables.shape
    static.token_ids[:count] = batch.token_ids
    static.positions[:count] = batch.positions
    static.slots[:count] = batch.slots
    static.context_lens[:count] = batch.context_lens
    static.block_tables[:count, :width] = batch.block_tables
    static.positions[count:] = 0
    static.slots[count:] = static.kv.scratch_slot
    static.context_lens[count:] = 1
    static.block_tables[count:] = static.kv.scratch_slot // static.kv.block_tokens


def record_cuda(forward: Callable[[], Outputs]) -> Callable[[], Outputs]:
    """Records on a side stream, behind two runs in which libraries set themselves up."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            forward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = forward()

    def replay() -> Outputs:
        graph.replay()
        return outputs

    return replay
