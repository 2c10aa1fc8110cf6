"""Stages that only some requests go through."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ragschema.planner.stages import F64, StageTable


def thinned(table: StageTable, share: float) -> StageTable:
    """The table for the whole stream, of which a share goes through the stage.

    Of a batch of b requests a binomial number goes through; the latency is the mean over it,
    nothing where it is none. Straight lines are drawn between the batch sizes of the table.

    Args:
        share: above 0; 1: the table is returned as it is.
    """
    assert share > 0, "a stage that no request goes through is left out"
    if share >= 1 - 1e-9:
        return table
    latency = np.array([_mean_latencies(row, table.batches, share) for row in table.latency_s])
    return replace(table, latency_s=latency, share=share, full_s=table.latency_s)


def _mean_latencies(row: F64, batches: tuple[int, ...], share: float) -> list[float]:
    found = []
    for at, batch in enumerate(batches):
        if not math.isfinite(row[at]):
            found.append(math.inf)
            continue
        known = row[: at + 1].copy()
        for place in range(at - 1, -1, -1):
            # A size that is not possible is padded to the next one that is.
            known[place] = known[place] if math.isfinite(known[place]) else known[place + 1]
        counts = np.arange(1, batch + 1)
        seconds = np.interp(counts, batches[: at + 1], known)
        found.append(float(seconds @ _chances(batch, share)))
    return found


def _chances(batch: int, share: float) -> F64:
    """Of 1 .. batch requests out of so many: float64 [batch]."""
    logs = [
        math.lgamma(batch + 1) - math.lgamma(k + 1) - math.lgamma(batch - k + 1)
        + k * math.log(share) + (batch - k) * math.log1p(-share)
        for k in range(1, batch + 1)
    ]  # fmt: skip
    chances: F64 = np.exp(np.array(logs))
    return chances
