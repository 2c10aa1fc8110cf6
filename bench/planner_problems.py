"""Made-up search problems: small enough to enumerate, awkward on purpose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.problem import Problem, Sharing, StageKind, StageTable


def random_problem(seed: int) -> Problem:
    """One to three chip stages, often a server stage between, then decode.

    Latencies do not fall with more chips nor rise with the batch, and about one cell in
    seven is not possible at all.
    """
    rng = np.random.default_rng(seed)
    chip_stages = int(rng.integers(1, 4))
    batches = tuple(1 << i for i in range(int(rng.integers(1, 5))))
    server_before = int(rng.integers(0, chip_stages)) if rng.random() < 0.7 else None
    stages = []
    for place in range(chip_stages):
        if place == server_before:
            stages.append(_stage(rng, "retrieval", StageKind.SERVER, batches))
        delay = bool(rng.random() < 0.25)
        stages.append(_stage(rng, f"stage-{place}", StageKind.CHIP, batches, delay))
    decode_batches = tuple(1 << i for i in range(len(batches) + int(rng.integers(0, 2))))
    stages.append(_stage(rng, "decode", StageKind.DECODE, decode_batches))
    return Problem(
        tuple(stages),
        min_chips=int(rng.integers(1, 8)),
        max_chips=int(rng.integers(8, 24)),
        chips_per_server=int(rng.integers(1, 5)),
        uniform_batch=bool(rng.random() < 0.2),
        sharing=Sharing.ANY if rng.random() < 0.8 else Sharing.NONE,
    )


def _stage(
    rng: np.random.Generator,
    name: str,
    kind: StageKind,
    batches: tuple[int, ...],
    delay: bool = False,
) -> StageTable:
    most = 6 if kind is StageKind.SERVER else 9
    picked: NDArray[np.int64] = rng.choice(
        np.arange(1, most), size=int(rng.integers(1, 4)), replace=False
    )
    counts = tuple(sorted(picked.tolist()))
    growth = [2.0 ** (rng.uniform(0, 1) * i) for i in range(len(batches))]
    latency = rng.uniform(0.01, 1, (len(counts), len(batches))) * growth
    latency[rng.random(latency.shape) < 0.15] = np.inf
    return StageTable(name, kind, counts, batches, latency, delay)
