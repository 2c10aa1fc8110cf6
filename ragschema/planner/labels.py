"""Partial schedules of the search, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.dominance import undominated
from ragschema.planner.options import GroupOptions
from ragschema.planner.problem import Problem
from ragschema.planner.stages import F64, I64


@dataclass(frozen=True, eq=False)
class Labels:
    """Partial schedules after some groups.

    Attributes:
        chips: int64 [n], spent, of all kinds.
        spent: int64 [n], the same by kind, as ``Kinds`` packs it.
        servers: int64 [n], row of the server table, -1 while none was met.
        rate: float64 [n].
        finish: float64 [n, burst], not falling along the burst.
        later_s: float64 [n], of an iterative batch in the groups so far.
        parent, option: int64 [n], where each came from.
        before: the labels that parents index; None at the start.
    """

    chips: I64
    spent: I64
    servers: I64
    rate: F64
    finish: F64
    later_s: F64
    parent: I64
    option: I64
    before: Labels | None

    def __len__(self) -> int:
        return len(self.chips)

    def take(self, keep: NDArray[np.intp] | NDArray[np.bool_]) -> Labels:
        return Labels(
            self.chips[keep], self.spent[keep], self.servers[keep], self.rate[keep],
            self.finish[keep], self.later_s[keep], self.parent[keep], self.option[keep],
            self.before,
        )  # fmt: skip


class Kinds:
    """Chips by kind packed into one integer, so that numpy can group by it.

    One kind packs to the number itself.
    """

    def __init__(self, problem: Problem) -> None:
        self._limits = [min(kind.limit, problem.max_chips) for kind in problem.kinds]
        # Room for twice the chips: a sum is unpacked before it is known to fit.
        self._base = 2 * problem.max_chips + 1
        self._single = len(self._limits) == 1

    def packed(self, kind: I64, chips: I64) -> I64:
        """int64, as the shape of the arguments."""
        if self._single:
            return chips
        packed: I64 = chips * np.array([self._base**i for i in range(len(self._limits))])[kind]
        return packed

    def _parts(self, spent: I64) -> list[I64]:
        return [spent // self._base**i % self._base for i in range(len(self._limits))]

    def fits(self, spent: I64) -> NDArray[np.bool_]:
        """Where no kind is over its limit."""
        if self._single:
            one: NDArray[np.bool_] = spent <= self._limits[0]
            return one
        pairs = zip(self._parts(spent), self._limits, strict=True)
        found: NDArray[np.bool_] = np.logical_and.reduce([part <= most for part, most in pairs])
        return found

    def weight(self, spent: I64, weights: Sequence[float]) -> F64:
        """What the chips count, with a weight per kind."""
        pairs = zip(self._parts(spent), weights, strict=True)
        return np.asarray(sum(part * weight for part, weight in pairs), dtype=np.float64)

    def counts(self, spent: int) -> list[int]:
        """Chips by kind."""
        return [int(part) for part in self._parts(np.array(spent))]


def undominated_labels(labels: Labels, last: bool) -> Labels:
    """Labels that no other with the same chips and servers makes useless.

    Args:
        last: nothing waits for single requests any more: the mean decides.
    """
    finish = labels.finish.mean(axis=1, keepdims=True) if last else labels.finish
    if labels.later_s.any():
        finish = np.column_stack([finish, labels.later_s])
    return labels.take(undominated(labels.spent, labels.servers, labels.rate, finish))


def by_shape(options: GroupOptions, what: NDArray[np.intp]) -> list[tuple[int, NDArray[np.intp]]]:
    """The different shapes of some options, and where each stands among them."""
    shape = options.shape_of[what]
    order = np.argsort(shape, kind="stable")
    borders = np.flatnonzero(np.diff(shape[order])) + 1
    return [(int(shape[part[0]]), part) for part in np.split(order, borders) if len(part)]


def spread(labels: Labels, limit: int) -> NDArray[np.intp]:
    """Some labels of low mean finish time and some of high rate."""
    by_time = np.argsort(labels.finish.mean(axis=1), kind="stable")[: limit // 2]
    by_rate = np.argsort(-labels.rate / np.maximum(labels.chips, 1), kind="stable")[: limit // 2]
    found: NDArray[np.intp] = np.unique(np.concatenate([by_time, by_rate]))
    return found


def start(burst: int) -> Labels:
    """Nothing spent, every request there at time 0."""
    zero = np.zeros(1, dtype=np.int64)
    # The largest rate that is a number: it is divided by weights that may be infinite.
    rate = np.full(1, np.finfo(np.float64).max)
    return Labels(zero, zero, zero - 1, rate, np.zeros((1, burst)), np.zeros(1), zero, zero, None)


def none(burst: int, before: Labels) -> Labels:
    empty = np.zeros(0, dtype=np.int64)
    return Labels(
        empty, empty, empty, np.zeros(0), np.zeros((0, burst)), np.zeros(0), empty, empty, before
    )
