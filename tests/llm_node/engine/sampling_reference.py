"""The sampler's rules once more, in plain numpy and loops, one sequence at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ragschema.types import Sampling

F64 = NDArray[np.float64]


def shaped_logits(
    logits: F64,
    sampling: Sampling,
    token_ids: Sequence[int],
    output_ids: Sequence[int],
    ends: Sequence[int],
) -> F64:
    """Logits after penalties and ``min_tokens``, [vocabulary]."""
    shaped = logits.astype(np.float64)
    for token_id in set(token_ids) | set(output_ids):
        value = shaped[token_id]
        penalty = sampling.repetition_penalty
        shaped[token_id] = value / penalty if value > 0 else value * penalty
    for token_id, count in Counter(output_ids).items():
        shaped[token_id] -= count * sampling.frequency_penalty + sampling.presence_penalty
    if len(output_ids) < sampling.min_tokens:
        shaped[list(ends)] = -np.inf
    return shaped


def probabilities(shaped: F64, sampling: Sampling) -> F64:
    """What is drawn from, [vocabulary]; sums to 1."""
    p = np.exp((shaped - shaped.max()) / sampling.temperature)
    if sampling.top_k:
        kth = sorted(p, reverse=True)[min(sampling.top_k, len(p)) - 1]
        p[p < kth] = 0
    total, reached, last = p.sum(), 0.0, 0.0
    for weight in sorted(p, reverse=True):
        if reached >= sampling.top_p * total:
            break
        reached, last = reached + weight, weight
    p[p < last] = 0
    p[p < sampling.min_p * p.max()] = 0
    return np.asarray(p / p.sum())


def drawn(p: F64, chance: float) -> int:
    """The first token, by id, whose cumulated probability is more than ``chance``."""
    return int(np.searchsorted(np.cumsum(p), chance * np.cumsum(p)[-1], side="right"))
