"""From a wanted recall to index settings, by what was measured of the index.

An index carries its curve: recall at 10 for pairs of nprobe and refine factor.
Recall is concave in nprobe, since lists are scanned nearest first and each next
one adds less. A straight line between two measured points therefore lies below
the curve, and what is read off it errs towards more work, not less recall.
Nothing is read off beyond the largest measured nprobe, nor between two refine
factors.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ragschema.errors import InvalidInput
from ragschema.storage.manifest import CurvePoint

#: Rows that were returned when the curve was measured.
_MEASURED_K = 10
#: A rescored candidate reads a whole vector from a place of its own; it costs
#: about as much as this many codes, which are read in order.
_CODES_PER_REFINED = 64


@dataclass(frozen=True)
class RecallChoice:
    """Settings for a wanted recall.

    Attributes:
        nprobe: lists to scan.
        refine_factor: candidates to rescore as a multiple of k; None: none.
        expected: recall to expect, a lower bound read off the curve.
        reached: whether that is what was wanted; if not, this is the best
            the index was measured to give.
    """

    nprobe: int
    refine_factor: int | None
    expected: float
    reached: bool


class _Point(NamedTuple):
    nprobe: int
    recall: float
    codes: float


class RecallCurve:
    """A measured curve, made ready to be asked for every request.

    Args:
        points: in any order; may be empty, then nothing can be chosen.
    """

    def __init__(self, points: Sequence[CurvePoint]) -> None:
        grouped: dict[int | None, list[_Point]] = {}
        for p in points:
            measured = _Point(p.nprobe, p.recall_at_10, p.codes_per_query)
            grouped.setdefault(p.refine_factor, []).append(measured)
        self._lines = {factor: _rising(line) for factor, line in grouped.items()}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def choose(self, recall: float) -> RecallChoice:
        """The cheapest settings that reach ``recall``, else the best ones.

        Raises:
            InvalidInput: ``recall`` is not in (0, 1], or nothing was measured.
        """
        if not 0.0 < recall <= 1.0:
            raise InvalidInput(
                f"{recall} is not above 0 and at most 1", field="recall", hint="such as 0.95"
            )
        if not self._lines:
            raise InvalidInput(
                "no recall was measured of this index",
                field="recall",
                hint="measure it with `ragrig index tune`",
            )
        best: tuple[float, RecallChoice] | None = None
        for factor, line in self._lines.items():
            point = _first_with(line, recall)
            if point is None:
                continue
            cost = point.codes + _refine_codes(factor)
            if best is None or cost < best[0]:
                best = cost, RecallChoice(point.nprobe, factor, point.recall, True)
        return best[1] if best is not None else self._most()

    def expected(self, nprobe: int, refine_factor: int | None) -> float | None:
        """A lower bound of the recall of given settings; None where nothing tells it."""
        line = self._lines.get(refine_factor)
        if line is None or nprobe < line[0].nprobe:
            return None
        at = bisect.bisect_right(line, nprobe, key=lambda p: p.nprobe)
        low = line[at - 1]
        if at == len(line):
            return low.recall
        high = line[at]
        part = (nprobe - low.nprobe) / (high.nprobe - low.nprobe)
        return low.recall + part * (high.recall - low.recall)

    def _most(self) -> RecallChoice:
        """The highest recall there is; of equals the cheapest."""
        factor, top = min(
            ((factor, line[-1]) for factor, line in self._lines.items()),
            key=lambda pair: (-pair[1].recall, pair[1].codes + _refine_codes(pair[0])),
        )
        return RecallChoice(top.nprobe, factor, top.recall, False)


def choose(curve: Sequence[CurvePoint], recall: float) -> RecallChoice:
    """The cheapest settings of a curve that reach ``recall``, else the best ones.

    Raises:
        InvalidInput: ``recall`` is not in (0, 1], or the curve is empty.
    """
    return RecallCurve(curve).choose(recall)


def _rising(points: list[_Point]) -> list[_Point]:
    """By nprobe; points with more lists but no more recall than another left out.

    A measured dip is noise of the sample, yet settings are only chosen where the
    recall they need was seen.
    """
    line: list[_Point] = []
    for point in sorted(points, key=lambda p: (p.nprobe, -p.recall)):
        if not line or point.recall > line[-1].recall:
            line.append(point)
    return line


def _first_with(line: Sequence[_Point], recall: float) -> _Point | None:
    """The smallest nprobe whose chord reaches ``recall``."""
    if line[0].recall >= recall:
        return line[0]
    for low, high in pairwise(line):
        if high.recall < recall:
            continue
        part = (recall - low.recall) / (high.recall - low.recall)
        nprobe = min(high.nprobe, math.ceil(low.nprobe + part * (high.nprobe - low.nprobe)))
        part = (nprobe - low.nprobe) / (high.nprobe - low.nprobe)
        return _Point(
            nprobe,
            max(recall, low.recall + part * (high.recall - low.recall)),
            low.codes + part * (high.codes - low.codes),
        )
    return None


def _refine_codes(factor: int | None) -> float:
    return 0.0 if factor is None else factor * _MEASURED_K * _CODES_PER_REFINED
