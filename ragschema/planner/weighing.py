"""What deployments weigh, exactly and at least: the denominator of a rate of the frontier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragschema.planner.problem import Problem, Weights
from ragschema.planner.stages import F64, I64


def weight_of(
    problem: Problem, weights: Weights, spent: Sequence[int], servers: tuple[int, int] | None
) -> float:
    """What a deployment counts.

    Args:
        spent: chips by kind.
        servers: kind and count.
    """
    chips = sum(w * n for w, n in zip(_of_chips(problem, weights), spent, strict=True))
    if servers is None or not weights.servers:
        return chips
    kind, count = servers
    if problem.chips_per_server is not None:
        # The servers are there with their chips, used or not.
        count = sum(spent) // problem.chips_per_server
    return chips + weights.servers[kind] * count


def weights_of(
    problem: Problem, spent: Sequence[int], servers: tuple[int, int] | None
) -> tuple[float, ...]:
    """One weight per rate of the frontier."""
    return tuple(weight_of(problem, weights, spent, servers) for weights in problem.weights)


class Weighing:
    """One rate's weights over columns of partial schedules.

    Attributes:
        of_chips: per kind.
        plain: the weight of a schedule follows from its number of chips alone.
        least: float64 [max_chips + 1], the lowest weight of so many chips in all, servers
            included; inf: there are not so many.
    """

    def __init__(self, problem: Problem, weights: Weights) -> None:
        self._problem = problem
        self.of_chips = _of_chips(problem, weights)
        self._of_servers = self._per_row(weights)
        tied = problem.chips_per_server is not None
        self.plain = len(problem.kinds) == 1 and (tied or self._of_servers is None)
        self._tied = self._tied_weight()
        self.least = self._least_of_chips() + self._tied

    def servers(self, rows: I64, total: I64) -> F64:
        """What servers count; rows of the server table, -1: not chosen yet."""
        if self._of_servers is None or self._problem.chips_per_server is not None:
            return self._tied[total]
        weight: F64 = np.append(self._of_servers, self._of_servers.min())[rows]
        return weight

    def _per_row(self, weights: Weights) -> F64 | None:
        table = self._problem.server_stage
        if table is None or not any(weights.servers):
            return None
        each = np.array([weights.servers[kind] for kind, _ in table.rows])
        return each if self._problem.chips_per_server is not None else each * table.counts

    def _tied_weight(self) -> F64:
        """What servers count at least by the number of chips in all."""
        totals = np.arange(self._problem.max_chips + 1)
        if self._of_servers is None:
            return np.zeros(len(totals))
        per_server = self._problem.chips_per_server
        if per_server is None:
            return np.full(len(totals), self._of_servers.min())
        weight: F64 = np.asarray(totals // per_server * self._of_servers[0], np.float64)
        return weight

    def _least_of_chips(self) -> F64:
        most = self._problem.max_chips
        limits = [min(kind.limit, most) for kind in self._problem.kinds]
        each = sorted(w for w, n in zip(self.of_chips, limits, strict=True) for _ in range(n))
        least = np.concatenate([[0.0], np.cumsum(each)])[: most + 1]
        return np.append(least, np.full(most + 1 - len(least), np.inf))


def _of_chips(problem: Problem, weights: Weights) -> tuple[float, ...]:
    return weights.chips or (1.0,) * len(problem.kinds)
