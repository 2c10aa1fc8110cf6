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
from ragschema.planner.memory import cache_bytes, room_bytes
from ragschema.planner.problem import Group, Problem
from ragschema.planner.stages import F64, StageKind, StageTable
from ragschema.planner.together import Beside, answers_per_s

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
        decode, beside: where decode is on the same chips, its table, and what it finds
            there; ``rate`` is then the answers' own.
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
    decode: StageTable | None = None
    beside: Beside | None = None
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
    shared = group[-1] == len(problem.stages) - 1
    tables = problem.stages_in((group,))
    stages = [tables[i] for i in group if tables[i].kind is not StageKind.DECODE]
    decode = tables[-1] if shared else None
    delay = len(group) == 1 and stages[0].delay
    tuples = _batch_tuples(problem, stages, burst)
    sizes = _sizes(stages)
    rows = np.arange(len(stages))
    given = _allocations(problem, stages, decode, iterative_batch)
    free = problem.uniform_batch or delay
    useful = np.isfinite(given.latency) if free else _useful(given.latency, sizes)
    tight = given.tight()
    parts: list[_Part] = []
    # Many allocations agree on which batch sizes are useful, and so on what is kept.
    for mask, mine in _alike(useful, tight) if len(useful) else ():
        keep = mask[rows, tuples].all(axis=1)
        close = bool(tight[mine[0]])
        if not free and not close:  # where memory is short, a larger batch may not fit
            keep &= ~_can_grow(sizes, mask, tuples, first)
        chosen = tuples[keep]
        if len(chosen):
            part = _Part.of(given, mine, chosen)
            parts.append(part.that_fits() if close else part)
    kept = tuple(i for i in group if tables[i].kind is not StageKind.DECODE)
    return _assemble(problem, kept, stages, burst, delay, given, parts, decode, iterative_batch)


@dataclass(frozen=True, eq=False)
class _Allocations:
    """Chips and servers that a group may get; n of them, with s stages.

    Attributes:
        chips, kind, servers: int64 [n].
        latency: float64 [n, s, batches], padded with inf.
        later_s: float64 [n].
        cache_bytes: float64 [n, s, batches], per chip, padded with 0.
        room_bytes: float64 [n], of each chip for caches.
        decode_cache_bytes: float64 [n], most that decode may hold there.
        decode_row: int64 [n], of the decode table, where it is on the same chips.
    """

    chips: I64
    kind: I64
    servers: I64
    latency: F64
    later_s: F64
    cache_bytes: F64
    room_bytes: F64
    decode_cache_bytes: F64
    decode_row: I64

    def tight(self) -> Mask:
        """Where some batch sizes may not fit beside each other."""
        possible = np.where(np.isfinite(self.latency), self.cache_bytes, 0.0)
        most = possible.max(axis=2).sum(axis=1) + self.decode_cache_bytes
        short: Mask = most > self.room_bytes
        return short


@dataclass(frozen=True, eq=False)
class _Part:
    """Options whose allocations find the same batch sizes useful; rows of batch indices."""

    at: I64
    rows: I64
    given: _Allocations

    @classmethod
    def of(cls, given: _Allocations, mine: Index, chosen: I64) -> _Part:
        """Every chosen tuple of batches on every of some allocations."""
        return cls(np.repeat(mine, len(chosen)), np.tile(chosen, (len(mine), 1)), given)

    def that_fits(self) -> _Part:
        """Those whose caches fit the chips together."""
        keep = self.left_bytes() >= 0
        return _Part(self.at[keep], self.rows[keep], self.given)

    def left_bytes(self) -> F64:
        """Of each chip, beside all caches."""
        columns = np.arange(self.rows.shape[1])
        held = self.given.cache_bytes[self.at[:, None], columns, self.rows].sum(axis=1)
        left: F64 = self.given.room_bytes[self.at] - held
        return left


def _alike(useful: Mask, tight: Mask) -> Iterator[tuple[Mask, Index]]:
    """Each different mask [s, batches] with tight memory or not, and who has it."""
    flags = np.column_stack([useful.reshape(len(useful), -1), tight])
    packed = np.packbits(flags, axis=1)
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
    problem: Problem,
    stages: list[StageTable],
    decode: StageTable | None,
    iterative_batch: int | None,
) -> _Allocations:
    on_chips = [s for s in stages if s.kind is StageKind.CHIP]
    on_chips += [] if decode is None else [decode]
    table = next((s for s in stages if s.kind is StageKind.SERVER), None)
    common = sorted(set.intersection(*(set(s.rows) for s in on_chips))) if on_chips else [(0, 0)]
    server_rows = np.arange(len(table.counts)) if table else np.array([-1])
    width = max(len(s.batches) for s in stages)
    shape = len(common), len(server_rows), len(stages), width
    latency, cache, later_s = np.full(shape, np.inf), np.zeros(shape), np.zeros(shape[:2])
    at = [{row: i for i, row in enumerate(stage.rows)} for stage in on_chips]
    for i, stage in enumerate(stages):
        again = np.array(
            [problem.later_of(stage, row, iterative_batch) for row in range(len(stage.counts))]
        )
        if stage.kind is StageKind.SERVER:
            latency[:, :, i, : len(stage.batches)] = stage.latency_s
            later_s += again
        else:
            rows = [at[on_chips.index(stage)][row] for row in common]
            latency[:, :, i, : len(stage.batches)] = stage.latency_s[rows][:, None]
            for j, row in enumerate(rows):
                cache[j, :, i, : len(stage.batches)] = cache_bytes(stage, row)
            later_s += again[rows][:, None]
    room = np.full(len(common), np.inf)
    if len(on_chips) > 1:  # one alone fits wherever it has a latency
        room = np.array([room_bytes(on_chips, [of[row] for of in at]) for row in common])
    decode_rows = [0 if decode is None else at[-1][row] for row in common]
    most = [0.0 if decode is None else cache_bytes(decode, row).max() for row in decode_rows]
    which, servers = (
        m.reshape(-1) for m in np.meshgrid(np.arange(len(common)), server_rows, indexing="ij")
    )
    given = np.array(common, dtype=np.int64).reshape(-1, 2)[which]
    flat = -1, len(stages), width
    return _Allocations(
        given[:, 1], given[:, 0], servers.astype(np.int64), latency.reshape(flat),
        later_s.reshape(-1), cache.reshape(flat), room[which], np.array(most)[which],
        np.array(decode_rows, dtype=np.int64)[which],
    )  # fmt: skip


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
    stages: list[StageTable],
    burst: int,
    delay: bool,
    given: _Allocations,
    parts: list[_Part],
    decode: StageTable | None,
    iterative_batch: int | None,
) -> GroupOptions:
    width = len(stages)
    at, rows = np.zeros(0, np.int64), np.zeros((0, width), np.int64)
    if parts:
        at = np.concatenate([p.at for p in parts])
        rows = np.concatenate([p.rows for p in parts])
    # Who has few chips left looks at the first options only.
    order = np.argsort(given.chips[at], kind="stable")
    whole = _Part(at[order], rows[order], given)
    at, rows = whole.at, whole.rows
    latency = given.latency[at[:, None], np.arange(width), rows]
    batches = _sizes(stages)[np.arange(width), rows]
    largest_after = np.maximum.accumulate(batches[:, ::-1], axis=1)[:, ::-1]
    w = latency / batches
    per_request_s = w.sum(axis=1)
    later_s = given.later_s[at]
    if problem.iterative is not None and iterative_batch is not None:
        per_request_s = per_request_s + later_s * problem.iterative.retrievals / iterative_batch
    rate, beside = 1.0 / per_request_s, None
    if decode is not None:
        beside = Beside(given.decode_row[at], per_request_s, whole.left_bytes())
        # Later groups are none, and earlier ones only add to ``later_s``.
        answers = answers_per_s(problem, decode, beside, later_s, burst, iterative_batch)
        rate = answers.max(axis=1)
    distinct, shape_of = _distinct(rows, batches)
    return GroupOptions(
        group=group,
        burst=burst,
        chips=given.chips[at],
        kind=given.kind[at],
        servers=given.servers[at],
        batches=batches,
        w=w,
        service_s=latency.sum(axis=1),
        # The mean of up(t + 1, M) over a burst is (burst + M) / 2.
        mean_s=(w * (burst + largest_after)).sum(axis=1) / 2,
        rate=problem.worth(rate),
        later_s=later_s,
        delay=delay,
        shapes=distinct,
        shape_of=shape_of,
        decode=decode,
        beside=beside,
    )


def _distinct(rows: I64, batches: I64) -> tuple[I64, I64]:
    """The different rows of ``batches``, and for every row which of them it is."""
    weights = 64 ** np.arange(rows.shape[1])
    _, first, which = np.unique(rows @ weights, return_index=True, return_inverse=True)
    return batches[first], which.reshape(-1).astype(np.int64)
