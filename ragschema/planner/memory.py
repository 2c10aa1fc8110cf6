"""Whether stages that share chips fit their memory together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragschema.planner.stages import F64, StageTable

#: Share of a chip's memory by which sums may be over it for rounding.
_SLACK = 1e-12


def room_bytes(stages: Sequence[StageTable], rows: Sequence[int]) -> float:
    """What is left of each chip for caches; inf: the stages do not say what they hold.

    Args:
        rows: of each stage's table, for the same chips. Equal weights are held once.
    """
    weights: dict[str, float] = {}
    limit_bytes = np.inf
    for stage, row in zip(stages, rows, strict=True):
        if stage.memory is not None:
            limit_bytes = float(stage.memory.limit_bytes[row])
            weights[stage.memory.owners[row]] = float(stage.memory.weights_bytes[row])
    return limit_bytes * (1 + _SLACK) - sum(weights.values())


def cache_bytes(stage: StageTable, row: int) -> F64:
    """Per batch size: float64 [batches]."""
    if stage.memory is None:
        return np.zeros(len(stage.batches))
    cache: F64 = stage.memory.cache_bytes[row]
    return cache
