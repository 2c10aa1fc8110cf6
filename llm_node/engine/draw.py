"""Draws tokens by chance that depends on a sequence's seed and place alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from ragschema.types import Sampling

#: Weights that are sorted before all of them are: enough for most nuclei.
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
    temperatures = [max(one.temperature, _COLDEST) for one in samplings]
    scaled = logits.double()
    # From the maximum down, so that a tiny temperature cannot overflow.
    scaled = (scaled - scaled.amax(dim=-1, keepdim=True)) / _column(temperatures, logits)
    weights = _truncated(scaled.exp_(), samplings)
    # The greatest weight is 1, and min_p is a share of it.
    _drop(weights, _column([one.min_p for one in samplings], logits))
    sums = weights.cumsum(dim=-1)
    wanted = _column(chances, logits) * sums[:, -1:]
    found = torch.searchsorted(sums, wanted, right=True)[:, 0]
    ids: list[int] = found.clamp_(max=logits.shape[-1] - 1).tolist()
    return ids


def chance(seed: int, place: int) -> float:
    """A number in [0, 1) for the place-th token of a sequence, on every machine the same."""
    digest = hashlib.blake2b(f"{seed}:{place}".encode(), digest_size=8).digest()
    # 52 bits, so that a product with it is always less than the other factor.
    return (int.from_bytes(digest, "little") >> 12) / (1 << 52)


def _truncated(weights: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Weights with those that top-k and top-p leave out set to 0, in place."""
    most = [i for i, one in enumerate(samplings) if 0 < one.top_k < weights.shape[-1]]
    if most:
        part = weights[most]
        _drop(part, _kth(part, [samplings[i].top_k for i in most]))
        weights[most] = part
    nuclei = [i for i, one in enumerate(samplings) if one.top_p < 1]
    if nuclei:
        part = weights[nuclei]
        _drop(part, _last_of_nucleus(part, [samplings[i].top_p for i in nuclei]))
        weights[nuclei] = part
    return weights


def _kth(weights: torch.Tensor, ks: list[int]) -> torch.Tensor:
    """The k-th greatest weight of every row, [n, 1]."""
    places = torch.tensor(ks, device=weights.device)[:, None] - 1
    return weights.topk(max(ks), dim=-1).values.gather(-1, places)


def _last_of_nucleus(weights: torch.Tensor, shares: list[float]) -> torch.Tensor:
    """The smallest of the fewest weights that reach a share of all, [n, 1]."""
    wanted = _column(shares, weights) * weights.sum(dim=-1, keepdim=True)
    head = weights.topk(min(_HEAD, weights.shape[-1]), dim=-1).values
    last = _last_needed(head, wanted)
    short = (head.sum(dim=-1) < wanted[:, 0]).nonzero()[:, 0]
    if len(short):
        ordered = weights[short].sort(dim=-1, descending=True).values
        last[short] = _last_needed(ordered, wanted[short])
    return last


def _last_needed(ordered: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    before = ordered.cumsum(dim=-1) - ordered
    needed = (before < wanted).sum(dim=-1, keepdim=True)
    return ordered.gather(-1, needed.clamp_(min=1) - 1)


def _drop(weights: torch.Tensor, floor: torch.Tensor) -> None:
    weights.masked_fill_(weights < floor, 0)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]
