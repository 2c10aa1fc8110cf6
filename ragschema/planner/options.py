"""What a group of stages may be given: chips, servers, and a batch size per stage.

Options that another one beats under any arrivals are left out here, so that the
search never sees them; the rules are exact and stand beside the code.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.burst import GroupShape
from ragschema.planner.problem import F64, Group, Problem, StageKind, StageTable

I64 = NDArray[np.int64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GroupOptions:
    """All options of one group for one burst size; n of them, with s stages.

    Attributes:
        chips: int64 [n], ascending; 0 for a group of servers alone.
        kind: int64 [n], of the chips.
        servers: int64 [n], row of the server table, -1 without one.
        batches: int64 [n, s].
        w: float64 [n, s], seconds per request of each stage.
        service_s: float64 [n], from the group's first to its last step for one batch.
        mean_s: float64 [n], mean finish time of a burst that is there at time 0.
        rate: float64 [n], requests per second, with those that come back during decode.
        later_s: float64 [n], of an iterative batch.
        delay: requests pass without queueing.
        shapes: int64 [k, s], the different batch sizes.
        shape_of: int64 [n], which of ``shapes`` an option has.
    """

    group: Group
    burst: int
    chips: I64
    kind: I64
    servers: I64
    batches: I64
    w: F64
    service_s: F64
    mean_s: F64
    rate: F64
    later_s: F64
    delay: bool
    shapes: I64
    shape_of: I64
    timed: dict[int, GroupShape] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.chips)

    def row(self, option: int) -> tuple[int, int]:
        """Kind and count of an option's chips."""
        return int(self.kind[option]), int(self.chips[option])

    def shape(self, number: int) -> GroupShape:
        """Made when it is first asked for: most are never needed."""
        if number not in self.timed:
            batches = tuple(self.shapes[number].tolist())
            self.timed[number] = GroupShape.of(batches, self.burst)
        return self.timed[number]


def group_options(
    problem: Problem, group: Group, burst: int, first: bool, iterative_batch: int | None = None
) -> GroupOptions:
    """Options of a group.

    Args:
        first: the burst arrives at this group all at once, at time 0.
        iterative_batch: of sequences that come back during decode.
    """
    stages = [problem.stages[i] for i in group]
    delay = len(stages) == 1 and stages[0].delay
    tuples = _batch_tuples(problem, stages, burst)
    sizes = _sizes(stages)
    rows = np.arange(len(stages))
    chips, kind, servers, latency, later_s = _allocations(problem, stages, iterative_batch)
    free = problem.uniform_batch or delay
    useful = np.isfinite(latency) if free else _useful(latency, sizes)
    parts: list[_Part] = []
    # Many allocations agree on which batch sizes are useful, and so on what is kept.
    for mask, mine in _alike(useful) if len(useful) else ():
        keep = mask[rows, tuples].all(axis=1)
        if not free:
            keep &= ~_can_grow(sizes, mask, tuples, first)
        chosen = tuples[keep]
        if len(chosen):
            times = latency[mine[:, None, None], rows, chosen]
            parts.append(
                _Part(
                    np.repeat(chips[mine], len(chosen)),
                    np.repeat(kind[mine], len(chosen)),
                    np.repeat(servers[mine], len(chosen)),
                    np.tile(chosen, (len(mine), 1)),
                    times.reshape(-1, len(stages)),
                    np.repeat(later_s[mine], len(chosen)),
                )
            )
    return _assemble(problem, group, burst, delay, parts, iterative_batch)


@dataclass(frozen=True, eq=False)
class _Part:
    """Options whose allocations find the same batch sizes useful; rows of batch indices."""

    chips: I64
    kind: I64
    servers: I64
    rows: I64
    latency: F64
    later_s: F64


def _alike(useful: Mask) -> Iterator[tuple[Mask, Index]]:
    """Each different mask [s, batches], and the allocations that have it."""
    packed = np.packbits(useful.reshape(len(useful), -1), axis=1)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    borders = np.cumsum(np.bincount(which.reshape(-1)))[:-1]
    for at, mine in zip(first.tolist(), np.split(order, borders), strict=True):
        yield useful[at], mine


def _batch_tuples(problem: Problem, stages: list[StageTable], burst: int) -> I64:
    """Every combination of batch indices within the burst: int64 [n, s]."""
    allowed = [
        [
            i
            for i, b in enumerate(stage.batches)
            if (b == burst if problem.uniform_batch else b <= burst)
        ]
        for stage in stages
    ]
    return np.array(list(itertools.product(*allowed)), dtype=np.int64).reshape(-1, len(stages))


def _allocations(
    problem: Problem, stages: list[StageTable], iterative_batch: int | None
) -> tuple[I64, I64, I64, F64, F64]:
    """Chips, kinds and server rows int64 [n], latency float64 [n, s, batches padded with inf],
    and later latency float64 [n]."""
    on_chips = [s for s in stages if s.kind is StageKind.CHIP]
    table = next((s for s in stages if s.kind is StageKind.SERVER), None)
    common = sorted(set.intersection(*(set(s.rows) for s in on_chips))) if on_chips else [(0, 0)]
    server_rows = np.arange(len(table.counts)) if table else np.array([-1])
    width = max(len(s.batches) for s in stages)
    latency = np.full((len(common), len(server_rows), len(stages), width), np.inf)
    later_s = np.zeros((len(common), len(server_rows)))
    for i, stage in enumerate(stages):
        again = np.array(
            [problem.later_of(stage, row, iterative_batch) for row in range(len(stage.counts))]
        )
        if stage.kind is StageKind.SERVER:
            latency[:, :, i, : len(stage.batches)] = stage.latency_s
            later_s += again
        else:
            at = {row: i for i, row in enumerate(stage.rows)}
            rows = [at[row] for row in common]
            latency[:, :, i, : len(stage.batches)] = stage.latency_s[rows][:, None]
            later_s += again[rows][:, None]
    which, servers = np.meshgrid(np.arange(len(common)), server_rows, indexing="ij")
    given = np.array(common, dtype=np.int64).reshape(-1, 2)[which.reshape(-1)]
    return (
        given[:, 1],
        given[:, 0],
        servers.reshape(-1).astype(np.int64),
        latency.reshape(-1, len(stages), width),
        later_s.reshape(-1),
    )


def _sizes(stages: list[StageTable]) -> I64:
    """Batch sizes int64 [s, batches], padded with a number larger than any."""
    width = max(len(s.batches) for s in stages)
    sizes = np.full((len(stages), width), np.iinfo(np.int64).max)
    for i, stage in enumerate(stages):
        sizes[i, : len(stage.batches)] = stage.batches
    return sizes


def _useful(latency: F64, sizes: I64) -> Mask:
    """Batch sizes of allocations [n, s, batches] that beat every smaller one per request.

    A smaller batch with no more seconds per request divides the larger one, so with it
    the same requests are done no later.
    """
    w = latency / sizes
    useful = np.isfinite(w)
    useful[..., 1:] &= w[..., 1:] < np.minimum.accumulate(w, axis=-1)[..., :-1]
    return useful


def _can_grow(sizes: I64, useful: Mask, tuples: I64, first: bool) -> Mask:
    """Tuples in which a batch can grow to a useful size without changing any rounding.

    ``GroupShape`` rounds to the largest batch before and to the largest after a stage: a
    batch below both is free to grow to them. Where everything arrives at time 0, only
    the largest after it counts.
    """
    chosen = sizes[np.arange(len(sizes)), tuples]
    suffix = np.maximum.accumulate(chosen[:, ::-1], axis=1)[:, ::-1]
    prefix = np.maximum.accumulate(chosen, axis=1)
    grows: Mask = np.zeros(len(tuples), dtype=bool)
    for i in range(0 if first else 1, len(sizes) - 1):
        room = suffix[:, i + 1] if first else np.minimum(suffix[:, i + 1], prefix[:, i - 1])
        larger = (sizes[i] > chosen[:, i : i + 1]) & (sizes[i] <= room[:, None]) & useful[i]
        grows |= larger.any(axis=1)
    return grows


def _assemble(
    problem: Problem,
    group: Group,
    burst: int,
    delay: bool,
    parts: list[_Part],
    iterative_batch: int | None,
) -> GroupOptions:
    stages = [problem.stages[i] for i in group]
    width = len(stages)
    empty = np.zeros(0, np.int64)
    parts = parts or [
        _Part(
            empty, empty, empty, np.zeros((0, width), np.int64), np.zeros((0, width)), np.zeros(0)
        )
    ]
    chips = np.concatenate([p.chips for p in parts])
    # Who has few chips left looks at the first options only.
    order = np.argsort(chips, kind="stable")
    rows = np.concatenate([p.rows for p in parts])[order]
    latency = np.concatenate([p.latency for p in parts])[order]
    batches = _sizes(stages)[np.arange(width), rows]
    largest_after = np.maximum.accumulate(batches[:, ::-1], axis=1)[:, ::-1]
    w = latency / batches
    later_s = np.concatenate([p.later_s for p in parts])[order]
    per_request_s = w.sum(axis=1)
    if problem.iterative is not None and iterative_batch is not None:
        per_request_s = per_request_s + later_s * problem.iterative.retrievals / iterative_batch
    distinct, shape_of = _distinct(rows, batches)
    return GroupOptions(
        group=group,
        burst=burst,
        chips=chips[order],
        kind=np.concatenate([p.kind for p in parts])[order],
        servers=np.concatenate([p.servers for p in parts])[order],
        batches=batches,
        w=w,
        service_s=latency.sum(axis=1),
        # The mean of up(t + 1, M) over a burst is (burst + M) / 2.
        mean_s=(w * (burst + largest_after)).sum(axis=1) / 2,
        rate=problem.worth(1.0 / per_request_s),
        later_s=later_s,
        delay=delay,
        shapes=distinct,
        shape_of=shape_of,
    )


def _distinct(rows: I64, batches: I64) -> tuple[I64, I64]:
    """The different rows of ``batches``, and for every row which of them it is."""
    weights = 64 ** np.arange(rows.shape[1])
    _, first, which = np.unique(rows @ weights, return_index=True, return_inverse=True)
    return batches[first], which.reshape(-1).astype(np.int64)
