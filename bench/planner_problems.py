"""Made-up search problems: small enough to enumerate, awkward on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.iterative import Iterative
from ragschema.planner.problem import ChipKind, Decoding, Problem, Sharing, Weights
from ragschema.planner.stages import StageKind, StageMemory, StageTable


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


def mixed_problem(seed: int, rates: int = 1) -> Problem:
    """A random problem with chips of two or three kinds, their weights and limits, and
    servers that are tied to chips or free, then of up to two kinds; they weigh or do not.

    Args:
        rates: of the frontier.
    """
    rng = np.random.default_rng((seed, 7))
    plain = random_problem(seed)
    kinds = tuple(
        ChipKind(f"kind-{i}", int(rng.integers(2, 14))) for i in range(int(rng.integers(2, 4)))
    )
    tied = bool(rng.random() < 0.5)
    servers = 1 if tied else int(rng.integers(1, 3))
    return replace(
        plain,
        stages=tuple(
            _mixed(rng, stage, servers if stage.kind is StageKind.SERVER else len(kinds))
            for stage in plain.stages
        ),
        kinds=kinds,
        chips_per_server=plain.chips_per_server if tied else None,
        weights=tuple(_weights(rng, f"rate-{i}", len(kinds), servers) for i in range(rates)),
    )


def iterative_problem(seed: int) -> Problem:
    """A random problem in which sequences retrieve again, through some of its stages."""
    rng = np.random.default_rng((seed, 11))
    plain = mixed_problem(seed) if rng.random() < 0.3 else random_problem(seed)
    batches = tuple(1 << i for i in range(int(rng.integers(1, 4))))
    stages = tuple(
        replace(stage, later_s=rng.uniform(0.001, 0.3, (len(stage.counts), len(batches))))
        if stage.kind is not StageKind.DECODE and rng.random() < 0.7
        else stage
        for stage in plain.stages
    )
    iterative = Iterative(int(rng.integers(1, 5)), batches)
    longest_s = float(rng.choice([np.inf, 1.5, 0.6]))
    return replace(plain, stages=stages, iterative=iterative, max_answer_s=longest_s)


def together_problem(seed: int) -> Problem:
    """A random problem, of one kind of chips or more, with retrieval during decode or without,
    whose decode may share chips, and whose stages may be too large to share them."""
    rng = np.random.default_rng((seed, 13))
    make = (random_problem, mixed_problem, iterative_problem)[int(rng.integers(0, 3))]
    plain = make(seed)
    kinds = len(plain.kinds)
    limits = rng.uniform(5, 20, kinds)
    stages = tuple(
        stage if stage.kind is StageKind.SERVER else _heavy(rng, stage, limits)
        for stage in plain.stages
    )
    together = None
    if rng.random() < 0.5:  # where they share, another split of the chips may be the best
        together = _slower(rng, stages[-2]), _slower(rng, stages[-1])
    decoding = Decoding.EITHER if rng.random() < 0.6 else Decoding.TOGETHER
    return replace(plain, stages=stages, decoding=decoding, together=together)


def _heavy(rng: np.random.Generator, stage: StageTable, limits: NDArray[np.float64]) -> StageTable:
    """The stage with memory on every row; each fits alone."""
    rows = len(stage.counts)
    limit = limits[np.array(stage.kinds or (0,) * rows)]
    weights = limit * rng.uniform(0.05, 0.6, rows)
    steps = rng.uniform(0, 1, (rows, len(stage.batches)))
    cache = np.cumsum(steps, axis=1) / steps.sum(axis=1, keepdims=True)
    cache *= ((limit - weights) * rng.uniform(0.1, 1, rows))[:, None]
    # Weights of equal owners are equal: stages with the same name are one model.
    owners = tuple(
        f"model {kind} {count}" if rng.random() < 0.3 else f"{stage.name} {kind} {count}"
        for kind, count in stage.rows
    )
    shared = [owner.startswith("model") for owner in owners]
    weights = np.where(shared, limit * 0.3, weights)
    cache = np.minimum(cache, (limit - weights)[:, None])
    return replace(stage, memory=StageMemory(limit, weights, cache, owners))


def _slower(rng: np.random.Generator, stage: StageTable) -> StageTable:
    return replace(stage, latency_s=stage.latency_s * rng.uniform(1, 1.3, stage.latency_s.shape))


def _weights(rng: np.random.Generator, name: str, kinds: int, servers: int) -> Weights:
    chips = tuple(rng.choice([1.0, 1.5, 4.0], kinds).tolist())
    if rng.random() < 0.3:
        return Weights(name, chips)
    return Weights(name, chips, tuple(rng.choice([0.0, 0.7, 3.0], servers).tolist()))


def _mixed(rng: np.random.Generator, stage: StageTable, kinds: int) -> StageTable:
    """The stage with a row per kind and count, each kind slower or faster than the others."""
    if kinds == 1:
        return stage
    speeds = rng.uniform(0.3, 3, kinds)
    latency = np.concatenate([stage.latency_s * speed for speed in speeds])
    latency[rng.random(latency.shape) < 0.1] = np.inf
    return replace(
        stage,
        counts=stage.counts * kinds,
        kinds=tuple(kind for kind in range(kinds) for _ in stage.counts),
        latency_s=latency,
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
