"""Runs one planned step on the device: the only place that calls the model."""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from llm_node.engine.attention import Backend, PagedAttention
from llm_node.engine.graphs import DecodeGraphs, Outputs, Record
from llm_node.engine.kernels import current, kernels_for
from llm_node.engine.kv import KvCache
from llm_node.engine.load import LoadedModel
from llm_node.engine.packed import HostBatch, PackedBatch
from llm_node.engine.scheduler import Chunk


@dataclass(frozen=True)
class StepOutput:
    """What a step gave, for the chunks that sample, in their order.

    Attributes:
        logits: float32 [n, vocabulary].
        hidden: [n, hidden], as the LM head read it.
        best: int64 [n, 2]: the likeliest token, and 1 where the logits are sound.
    """

    logits: torch.Tensor
    hidden: torch.Tensor
    best: torch.Tensor


class Runner:
    """Packs chunks, runs the model over them, and keeps what the LM head read.

    Args:
        record: how decode steps are recorded for replay, None for never.
    """

    def __init__(self, model: LoadedModel, kv: KvCache, record: Record | None = None) -> None:
        self._module: Any = model.module
        self._kv = kv
        self._kernels = kernels_for(model.device, model.layout)
        self._hidden: torch.Tensor | None = None
        self._pieces = pieces_of(model.module.get_output_embeddings().weight.shape[0])
        model.module.get_output_embeddings().register_forward_pre_hook(self._keep_hidden)
        self._graphs = None
        if record is not None:
            self._graphs = DecodeGraphs(self._decode, kv, record, self._kernels.table_blocks)

    def _keep_hidden(self, _module: Any, args: tuple[torch.Tensor, ...]) -> None:
        self._hidden = args[0]

    def warm_up(self, most: int) -> None:
        """Records decode steps of up to ``most`` sequences, where that can be done before."""
        if self._graphs is not None:
            with current(self._kv.device):
                self._graphs.warm_up(most)

    def run(self, chunks: Seq[Chunk]) -> StepOutput:
        """One forward pass, without gradients; single tokens must come first."""
        batch = gather(chunks, self._kv.block_tokens)
        with current(self._kv.device):
            outputs = None if self._graphs is None else self._graphs.run(batch)
            if outputs is None:
                outputs = self._forward(batch.on(self._kv), self._kernels.attend)
        return StepOutput(*outputs)

    def _decode(self, batch: PackedBatch) -> Outputs:
        return self._forward(batch, self._kernels.recorded)

    def _forward(self, batch: PackedBatch, backend: Backend) -> Outputs:
        output = self._module(
            input_ids=batch.token_ids[None],
            position_ids=batch.positions[None],
            use_cache=False,
            logits_to_keep=batch.sample_rows,
            ragrig=PagedAttention(batch, backend),
        )
        hidden, self._hidden = self._hidden, None
        assert hidden is not None, "the LM head was not called"
        logits = output.logits[0].float()
        return logits, hidden[0], best_of(logits, self._pieces)


def best_of(logits: torch.Tensor, pieces: int) -> torch.Tensor:
    """See StepOutput; here, so that a recorded step holds it and the host waits once.

    Args:
        logits: [n, vocabulary].
        pieces: in which each row is looked at, a divisor of the vocabulary; a compiler
            gives a piece to one multiprocessor.
    """
    length = logits.shape[1] // pieces
    most, where = logits.view(len(logits), pieces, length).max(dim=-1)
    best, piece = most.max(dim=-1)
    token = piece * length + where.gather(1, piece[:, None])[:, 0]
    # The maximum of a row is finite unless the row holds NaN or infinity, or nothing else.
    return torch.stack((token, torch.isfinite(best).long()), dim=-1)


def pieces_of(vocabulary: int) -> int:
    """The divisor of a vocabulary that is nearest below its square root."""
    return next(n for n in range(math.isqrt(vocabulary), 0, -1) if vocabulary % n == 0)


def gather(chunks: Seq[Chunk], block_tokens: int) -> HostBatch:
    """The step's tokens; see PackedBatch."""
    counts = [chunk.count for chunk in chunks]
    firsts = np.array([chunk.start for chunk in chunks])
    starts = np.zeros(len(chunks) + 1, dtype=np.int32)
    starts[1:] = np.array(counts).cumsum()
    contexts = [chunk.start + chunk.count for chunk in chunks]
    width = -(-max(contexts) // block_tokens)
    tables = np.zeros((len(chunks), width), dtype=np.int32)
    ids: list[int] = []
    for i, chunk in enumerate(chunks):
        used = chunk.sequence.blocks[:width]
        tables[i, : len(used)] = used
        ids += chunk.sequence.token_ids[chunk.start : contexts[i]]
    rows = np.repeat(np.arange(len(chunks)), counts)
    positions = np.arange(len(ids)) + (firsts - starts[:-1])[rows]
    blocks, offsets = np.divmod(positions, block_tokens)
    sampled = [i for i, chunk in enumerate(chunks) if chunk.samples]
    return HostBatch(
        token_ids=np.array(ids, dtype=np.int64),
        positions=positions,
        slots=tables[rows, blocks].astype(np.int64) * block_tokens + offsets,
        query_starts=starts,
        context_lens=np.array(contexts, dtype=np.int32),
        block_tables=tables,
        sample_rows=starts[1:][sampled].astype(np.int64) - 1,
        decodes=sum(1 for _ in takewhile(lambda count: count == 1, counts)),
        query_lens=tuple(counts),
        contexts=tuple(contexts),
    )
