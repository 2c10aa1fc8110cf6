"""One step's tokens, packed for one forward pass over ragged sequences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from llm_node.engine.kv import KvCache
from ragschema.types import I32, I64


@dataclass(frozen=True)
class HostBatch:
    """A step's tokens on the host; the fields are those of PackedBatch."""

    token_ids: I64
    positions: I64
    slots: I64
    query_starts: I32
    context_lens: I32
    block_tables: I32
    sample_rows: I64
    decodes: int
    query_lens: tuple[int, ...]
    contexts: tuple[int, ...]

    def on(self, kv: KvCache) -> PackedBatch:
        """The same where the cache lies."""

        def put(array: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(array).to(kv.device, non_blocking=True)

        return PackedBatch(
            kv=kv,
            token_ids=put(self.token_ids),
            positions=put(self.positions),
            slots=put(self.slots),
            query_starts=put(self.query_starts),
            context_lens=put(self.context_lens),
            block_tables=put(self.block_tables),
            sample_rows=put(self.sample_rows),
            decodes=self.decodes,
            query_lens=self.query_lens,
            contexts=self.contexts,
        )


@dataclass
class PackedBatch:
    """T tokens of B sequences; those with a single token come first.

    Travels through the model as the keyword ``ragrig`` to the attention function.

    Attributes:
        kv: the cache, which attention writes and reads.
        token_ids: int64 [T].
        positions: int64 [T], from 0 in each sequence.
        slots: int64 [T], where each token's K and V go.
        query_starts: int32 [B + 1], first row of each sequence's tokens.
        context_lens: int32 [B], tokens of each sequence after this step.
        block_tables: int32 [B, most blocks], padded with 0.
        sample_rows: int64 [n], rows whose logits are wanted.
        decodes: sequences with a single token, the first of the batch.
        query_lens: host copy, tokens of each sequence in this step.
        contexts: host copy of context_lens.
        plans: what an attention path prepared for this step, by its own key.
    """

    kv: KvCache
    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    query_starts: torch.Tensor
    context_lens: torch.Tensor
    block_tables: torch.Tensor
    sample_rows: torch.Tensor
    decodes: int
    query_lens: tuple[int, ...]
    contexts: tuple[int, ...]
    plans: dict[Any, Any] = field(default_factory=dict)
