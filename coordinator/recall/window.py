"""A collection's latest comparisons with exact search, and what they tell."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

#: Comparisons that an estimate rests on, at most.
WINDOW = 200
#: One-sided 95 %.
_Z = 1.645


@dataclass(frozen=True)
class RecallEstimate:
    """Recall of the latest compared searches.

    Attributes:
        mean: share of the true nearest rows that were returned.
        lower_bound: the recall is above it with 95 % confidence.
        samples: searches it rests on.
    """

    mean: float
    lower_bound: float
    samples: int


class RecallWindow:
    """Comparisons of one index, the latest WINDOW of them.

    Args:
        index_path: the index's file; another index starts another window.
    """

    def __init__(self, index_path: str) -> None:
        self.index_path = index_path
        self._recalls: deque[float] = deque(maxlen=WINDOW)

    def add(self, recall: float) -> None:
        self._recalls.append(recall)

    def estimate(self) -> RecallEstimate | None:
        """None before the first comparison."""
        count = len(self._recalls)
        if count == 0:
            return None
        mean = math.fsum(self._recalls) / count
        return RecallEstimate(mean, wilson_lower(mean, count), count)


def wilson_lower(mean: float, samples: int) -> float:
    """Wilson's lower bound; careful here, since no sample varies more than a yes or no."""
    z2 = _Z * _Z / samples
    middle = mean + z2 / 2
    spread = math.sqrt(max(0.0, mean * (1 - mean) / samples * _Z * _Z + z2 * z2 / 4))
    return max(0.0, (middle - spread) / (1 + z2))


def recall_of(found: list[int], distances: list[float], row_ids: list[int], k: int) -> float | None:
    """Share of the k true nearest rows that were found; None when there are none.

    Rows as far away as the k-th are as true as it is, so that copies of one
    text do not count as misses.

    Args:
        found: rows the search returned.
        distances: of an exact search, ascending; with its ``row_ids``, more
            than k where there are more.
    """
    wanted = min(k, len(row_ids))
    if wanted == 0:
        return None
    last = distances[wanted - 1]
    true = {row for row, far in zip(row_ids, distances, strict=True) if far <= last}
    return min(wanted, len(true.intersection(found))) / wanted
