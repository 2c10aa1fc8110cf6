"""Chooses the next tokens of a batch, one row of logits per sequence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ragschema.types import Sampling


@dataclass(frozen=True)
class SamplerRow:
    """What the next token of one sequence depends on besides its logits.

    Attributes:
        seed: with the number of output tokens, all that chance depends on.
    """

    sampling: Sampling
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]
    seed: int


@dataclass(frozen=True)
class Chosen:
    """A token, and how likely it was when that was asked for."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Greedy, or temperature and top-p."""

    def choose(self, logits: torch.Tensor, rows: Sequence[SamplerRow]) -> list[Chosen]:
        """One token per row of logits [n, vocabulary], float32 and finite."""
        best = logits.argmax(dim=-1).tolist()
        return [
            Chosen(best[i] if row.sampling.temperature == 0 else _draw(logits[i], row))
            for i, row in enumerate(rows)
        ]


def _draw(logits: torch.Tensor, row: SamplerRow) -> int:
    logits = logits.double().cpu()
    # From the maximum down, so that a tiny temperature cannot overflow.
    scaled = (logits - logits.max()) / max(row.sampling.temperature, 1e-4)
    ordered, ids = torch.softmax(scaled, dim=-1).sort(descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    kept = torch.where(before < row.sampling.top_p, ordered, torch.zeros_like(ordered))
    place = torch.multinomial(kept, 1, generator=_generator(row.seed, len(row.output_ids)))
    return int(ids[int(place)])


def _generator(seed: int, position: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
