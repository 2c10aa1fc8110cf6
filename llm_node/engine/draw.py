"""Draws tokens by chance that depends on a sequence's seed and place alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch

from ragschema.types import Sampling

#: Logits that are sorted before all of them are: enough for most nuclei.
_HEAD = 256
_COLDEST = 1e-4


def draw(
    logits: torch.Tensor, samplings: Sequence[Sampling], chances: Sequence[float]
) -> list[int]:
    """One token per row of logits [n, vocabulary], for temperatures above 0.

    Temperature comes first, then top-k, then top-p of what top-k left, then
    min-p. Tokens as likely as the last one that is kept are kept too, so that
    what is kept depends on nothing but the logits.

    Args:
        chances: in [0, 1), one per row; see ``chance``.
    """
    temperatures = _column([max(one.temperature, _COLDEST) for one in samplings], logits)
    weights = _weights(logits, logits.amax(dim=-1, keepdim=True), temperatures)
    if any(one.top_k or one.top_p < 1 for one in samplings):
        weights.masked_fill_(logits < _floors(logits, weights, temperatures, samplings), 0)
    if any(one.min_p for one in samplings):
        # The greatest weight is 1, and min_p is a share of it.
        least = _column([one.min_p for one in samplings], logits)
        weights.masked_fill_(weights < least, 0)
    sums = weights.cumsum_(dim=-1)
    wanted = _column(chances, logits) * sums[:, -1:]
    found = torch.searchsorted(sums, wanted, right=True)[:, 0]
    ids: list[int] = found.clamp_(max=logits.shape[-1] - 1).tolist()
    return ids


def chance(seed: int, place: int) -> float:
    """A number in [0, 1) for the place-th token of a sequence, on every machine the same."""
    digest = hashlib.blake2b(f"{seed}:{place}".encode(), digest_size=8).digest()
    # 52 bits, so that a product with it is always less than the other factor.
    return (int.from_bytes(digest, "little") >> 12) / (1 << 52)


def _weights(
    logits: torch.Tensor, greatest: torch.Tensor, temperatures: torch.Tensor
) -> torch.Tensor:
    """float64 [n, m], from the greatest logit down, so that nothing overflows."""
    # In place: new memory of this size costs more than the arithmetic.
    weights = logits.double()
    weights -= greatest
    weights /= temperatures
    return weights.exp_()


def _floors(
    logits: torch.Tensor,
    weights: torch.Tensor,
    temperatures: torch.Tensor,
    samplings: Sequence[Sampling],
) -> torch.Tensor:
    """The smallest logit that top-k and top-p keep in every row, [n, 1]."""
    floors = torch.full_like(logits[:, :1], -math.inf)
    most = [i for i, one in enumerate(samplings) if 0 < one.top_k < logits.shape[-1]]
    if most:
        ks = torch.tensor([samplings[i].top_k for i in most], device=logits.device)
        best = logits[most].topk(int(ks.max()), dim=-1).values
        floors[most] = best.gather(-1, ks[:, None] - 1)
    nuclei = [i for i, one in enumerate(samplings) if one.top_p < 1]
    if nuclei:
        part, floor = logits[nuclei], floors[nuclei]
        kept = weights[nuclei].masked_fill_(part < floor, 0).sum(dim=-1, keepdim=True)
        wanted = kept * _column([samplings[i].top_p for i in nuclei], logits)
        floors[nuclei] = torch.maximum(floor, _last_needed(part, temperatures[nuclei], wanted))
    return floors


def _last_needed(
    logits: torch.Tensor, temperatures: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """The smallest of the fewest logits whose weights reach ``wanted``, [n, 1]."""
    ordered = logits.topk(min(_HEAD, logits.shape[-1]), dim=-1).values
    last, reached = _last_of(ordered, temperatures, wanted)
    short = (reached < wanted).nonzero()[:, 0]
    if len(short):
        rows = _descending(logits[short])
        last[short], _ = _last_of(rows, temperatures[short], wanted[short])
    return last


def _last_of(
    ordered: torch.Tensor, temperatures: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of sorted logits, and what all of their weights reach."""
    weights = _weights(ordered, ordered[:, :1], temperatures)
    sums = weights.cumsum(dim=-1)
    needed = (sums - weights < wanted).sum(dim=-1, keepdim=True)
    return ordered.gather(-1, needed.clamp_(min=1) - 1), sums[:, -1:]


def _descending(logits: torch.Tensor) -> torch.Tensor:
    """Every row sorted. On a CPU numpy does it several times as fast as torch."""
    if logits.device.type == "cpu":
        return torch.from_numpy(np.sort(logits.numpy(), axis=-1)).flip(-1)
    return logits.sort(dim=-1, descending=True).values


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]
