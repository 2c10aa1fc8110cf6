"""Decode steps of fixed shapes, recorded once as CUDA graphs and replayed.

A step in which every sequence has a single token is padded to the next shape of
a small set. Rows of padding read and write the cache's scratch slot. All that
changes from step to step lies in one piece of memory, which one copy fills.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from llm_node.engine.kv import KvCache
from llm_node.engine.packed import HostBatch, PackedBatch
from ragschema.types import I32, I64

_LOG = logging.getLogger(__name__)

#: (logits float32 [n, vocabulary], hidden [n, hidden], best [n, 2]) of a batch.
Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Forward = Callable[[PackedBatch], Outputs]
#: Runs a step of so many sequences now, and returns what runs it again over the same memory.
Record = Callable[[Callable[[], Outputs], int], Callable[[], Outputs]]
#: Shapes that one compiled step is made for before the compiler gives up.
_COMPILED_SHAPES = 256
#: For a step of one sequence: makes its products kernels like others, fused with what comes
#: before and behind them, and tunes each. Libraries' products read a single row's weights slowly.
_TUNED: dict[str, str | int | bool | Callable[..., Any]] = {"coordinate_descent_tuning": True}


@dataclass(frozen=True)
class _Recorded:
    staging: Staging
    replay: Callable[[], Outputs]


class DecodeGraphs:
    """Recorded steps by (sequences, blocks per sequence), both powers of two.

    Args:
        forward: the model over a batch, without reading values on the host.
        record: ``record_cuda``, or another for tests.
        least_blocks: per sequence, of every recorded step: the fewer shapes the better
            where what is not used of a table costs nothing.
    """

    def __init__(
        self, forward: Forward, kv: KvCache, record: Record, least_blocks: int = 1
    ) -> None:
        self._forward = forward
        self._kv = kv
        self._record = record
        self._least_blocks = least_blocks
        self._recorded: dict[tuple[int, int], _Recorded] = {}

    def run(self, batch: HostBatch) -> Outputs | None:
        """The step's outputs, valid until the next; None when the shape is not for graphs."""
        count, width = batch.block_tables.shape
        if batch.decodes != count or len(batch.sample_rows) != count:
            return None
        key = (power_of_two(count), power_of_two(max(width, self._least_blocks)))
        recorded = self._recorded.get(key) or self._make(*key)
        recorded.staging.fill(batch)
        logits, hidden, best = recorded.replay()
        return logits[:count], hidden[:count], best[:count]

    def warm_up(self, most: int) -> None:
        """Records the steps of up to ``most`` sequences before there are any.

        Where shapes depend on what is asked, nothing can be known before.
        """
        if self._least_blocks == 1:
            return
        width = power_of_two(self._least_blocks)
        for exponent in range(power_of_two(most).bit_length()):
            count = 1 << exponent
            started_s = time.monotonic()
            self._make(count, width)
            took_s = time.monotonic() - started_s
            _LOG.info("recorded a step of %d sequences in %.1f s", count, took_s)

    def _make(self, count: int, width: int) -> _Recorded:
        """Records a step of nothing but padding."""
        staging = Staging(self._kv, count, width)
        static = staging.batch

        def forward() -> Outputs:
            static.plans.clear()
            return self._forward(static)

        recorded = _Recorded(staging, self._record(forward, count))
        self._recorded[count, width] = recorded
        return recorded


def power_of_two(number: int) -> int:
    """The smallest one that is not below a positive number."""
    return 1 << (number - 1).bit_length()


class Staging:
    """A padded batch on the device whose changing parts lie side by side, and their host copy.

    Nothing but padding until it is filled.

    The host copy may be filled again once something of the step before has been read:
    by then it has been copied.
    """

    def __init__(self, kv: KvCache, count: int, width: int) -> None:
        # Compiled kernels copy inputs that do not begin at 16 bytes before they read them.
        span = max(4, count)
        words = 7 * span + count * width
        pinned = kv.device.type == "cuda"
        self._host = torch.zeros(words, dtype=torch.int32, pin_memory=pinned)
        self._device = torch.zeros(words, dtype=torch.int32, device=kv.device)
        flat = self._host.numpy()
        self._ids: I64 = flat[: 6 * span].view(np.int64).reshape(3, span)[:, :count]
        self._contexts: I32 = flat[6 * span :][:count]
        self._tables: I32 = flat[7 * span :].reshape(count, width)
        self._scratch_slot, self._block_tokens = kv.scratch_slot, kv.block_tokens
        ids = self._device[: 6 * span].view(torch.int64).view(3, span)[:, :count]
        self.batch = PackedBatch(
            kv=kv,
            token_ids=ids[0],
            positions=ids[1],
            slots=ids[2],
            query_starts=torch.arange(count + 1, dtype=torch.int32, device=kv.device),
            context_lens=self._device[6 * span :][:count],
            block_tables=self._device[7 * span :].view(count, width),
            sample_rows=torch.arange(count, device=kv.device),
            decodes=count,
            query_lens=(1,) * count,
            contexts=(),
        )
        self._pad(0)
        self._device.copy_(self._host)

    def fill(self, batch: HostBatch) -> None:
        """Copies a batch to the device; what is left over is padding."""
        count, width = batch.block_tables.shape
        for row, values in enumerate((batch.token_ids, batch.positions, batch.slots)):
            self._ids[row, :count] = values
        self._contexts[:count] = batch.context_lens
        self._tables[:count, :width] = batch.block_tables
        self._pad(count)
        self._device.copy_(self._host, non_blocking=True)

    def _pad(self, count: int) -> None:
        """Makes padding of the rows behind the first ``count``."""
        self._ids[1, count:] = 0
        self._ids[2, count:] = self._scratch_slot
        self._contexts[count:] = 1
        self._tables[count:] = self._scratch_slot // self._block_tokens


def record_cuda(forward: Callable[[], Outputs], _count: int) -> Callable[[], Outputs]:
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


def compiled(record: Record, backend: str = "inductor") -> Record:
    """Fuses a step's many small kernels before it is recorded.

    A step that the compiler cannot take is recorded as it is, with a warning.

    Args:
        backend: of torch.compile.
    """

    def recorded(forward: Callable[[], Outputs], count: int) -> Callable[[], Outputs]:
        from torch._dynamo import config
        from torch._dynamo.exc import TorchDynamoException

        options = dict(_TUNED) if backend == "inductor" and count == 1 else None
        fused = torch.compile(forward, fullgraph=True, backend=backend, options=options)

        def run() -> Outputs:
            # Each shape of a step is a version of one function.
            with config.patch(recompile_limit=_COMPILED_SHAPES):
                return fused()

        try:
            run()
        except TorchDynamoException as error:
            _LOG.warning("decode steps are not compiled: %s", str(error).split("\n", 1)[0])
            return record(forward, count)
        return record(run, count)

    return recorded
