"""Runs one planned step on the device: the only place that calls the model."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from llm_node.engine.attention import PagedAttention, backend_for
from llm_node.engine.kv import KvCache
from llm_node.engine.load import LoadedModel
from llm_node.engine.packed import PackedBatch
from llm_node.engine.scheduler import Chunk


@dataclass(frozen=True)
class StepOutput:
    """What a step gave, for the chunks that sample, in their order.

    Attributes:
        logits: float32 [n, vocabulary].
        hidden: [n, hidden], as the LM head read it.
    """

    logits: torch.Tensor
    hidden: torch.Tensor


class Runner:
    """Packs chunks, runs the model over them, and keeps what the LM head read."""

    def __init__(self, model: LoadedModel, kv: KvCache) -> None:
        self._module: Any = model.module
        self._kv = kv
        self._device = model.device
        self._backend = backend_for(model.device, model.layout.dtype)
        self._hidden: torch.Tensor | None = None
        model.module.get_output_embeddings().register_forward_pre_hook(self._keep_hidden)

    def _keep_hidden(self, _module: Any, args: tuple[torch.Tensor, ...]) -> None:
        self._hidden = args[0]

    def run(self, chunks: Seq[Chunk]) -> StepOutput:
        """One forward pass, without gradients; single tokens must come first."""
        batch = pack(chunks, self._kv)
        output = self._module(
            input_ids=batch.token_ids[None],
            position_ids=batch.positions[None],
            use_cache=False,
            logits_to_keep=batch.sample_rows,
            ragrig=PagedAttention(batch, self._backend),
        )
        hidden, self._hidden = self._hidden, None
        assert hidden is not None, "the LM head was not called"
        return StepOutput(output.logits[0].float(), hidden[0])


def pack(chunks: Seq[Chunk], kv: KvCache) -> PackedBatch:
    """The step's tensors; see PackedBatch."""
    size = kv.block_tokens
    counts = [chunk.count for chunk in chunks]
    contexts = [chunk.start + chunk.count for chunk in chunks]
    starts = np.zeros(len(chunks) + 1, dtype=np.int32)
    np.cumsum(counts, out=starts[1:])
    width = max(-(-context // size) for context in contexts)
    tables = np.zeros((len(chunks), width), dtype=np.int32)
    ids = np.empty(starts[-1], dtype=np.int64)
    positions, slots = np.empty_like(ids), np.empty_like(ids)
    for i, chunk in enumerate(chunks):
        used = chunk.sequence.blocks[:width]
        tables[i, : len(used)] = used
        rows = slice(starts[i], starts[i + 1])
        ids[rows] = chunk.sequence.token_ids[chunk.start : contexts[i]]
        places = np.arange(chunk.start, contexts[i])
        positions[rows] = places
        slots[rows] = tables[i, places // size] * size + places % size
    sampled = [starts[i + 1] - 1 for i, chunk in enumerate(chunks) if chunk.samples]
    return PackedBatch(
        kv=kv,
        token_ids=_put(ids, kv),
        positions=_put(positions, kv),
        slots=_put(slots, kv),
        query_starts=_put(starts, kv),
        context_lens=_put(np.array(contexts, dtype=np.int32), kv),
        block_tables=_put(tables, kv),
        sample_rows=_put(np.array(sampled, dtype=np.int64), kv),
        decodes=sum(1 for _ in takewhile(lambda count: count == 1, counts)),
        query_lens=tuple(counts),
        contexts=tuple(contexts),
    )


def _put(array: Any, kv: KvCache) -> torch.Tensor:
    return torch.from_numpy(array).to(kv.device, non_blocking=True)
