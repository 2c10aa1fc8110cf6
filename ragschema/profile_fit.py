"""Seconds of a call as a sum of terms, each a product of features and a cost not below 0.

A cost below 0 would predict a time below 0 somewhere, so a term that wants one is left out.
Errors are relative: a millisecond at the smallest point matters as much as a second at the largest.

Caches make steps that no such sum has. Where it helps, and only between measured points, a
prediction is corrected by what the sum missed at the points around it. Whether it helps, which
terms are worth having, and how wide an interval has to be, is found by leaving out each point in
turn and predicting it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput

_STRICT = ConfigDict(extra="forbid", strict=True)
_F64 = NDArray[np.float64]
#: The term that is the same for every call.
CONSTANT: Final = "1"
_MAX_TERMS: Final = 6
_ROUNDS: Final = 3
#: Relative errors beyond this, and beyond three times the usual one, count ever less.
_DISTURBED: Final = 0.3
_LEAST_WIDTH: Final = 0.02
#: Points below which leaving one out leaves too little to fit.
_FEW: Final = 4
#: Points for a term beyond which none can do harm.
_PLENTY: Final = 4
#: A further term has to lower the error of points left out at least to this part of it.
_WORTH: Final = 0.97
_NOTHING: Final = 1e-9
#: Distance in doublings within which a point is as good as there.
_NEAR: Final = 0.05

Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Relative = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Term:
    """A summand.

    Attributes:
        name: features with ``*`` between them, such as ``batch*tokens``, or ``1``.
        seconds: what one unit of the product costs.
    """

    __pydantic_config__ = _STRICT
    name: Annotated[str, Field(pattern=r"^(1|[a-z][a-z_]{0,31}(\*[a-z][a-z_]{0,31}){0,3})$")]
    seconds: Cost


@dataclass(frozen=True)
class Prediction:
    """Seconds of one call.

    Attributes:
        low, high: nine of ten calls like those measured lie between.
        extrapolated: outside what was measured.
    """

    seconds: float
    low: float
    high: float
    extrapolated: bool

    @property
    def spread(self) -> float:
        """Relative distance of the slow end."""
        return self.high / self.seconds - 1


@dataclass(frozen=True)
class Fit:
    """A model of samples' medians.

    Attributes:
        residuals: of each sample in order: measured over the sum of terms, less 1.
        corrected: predictions between points are corrected by the residuals around them.
        width: relative half-width of intervals: the 90th percentile of the errors of points
            that were left out, or the repeats' own dispersion where that is larger.
    """

    __pydantic_config__ = _STRICT
    terms: Annotated[tuple[Term, ...], Field(min_length=1, max_length=_MAX_TERMS)]
    residuals: Annotated[tuple[Relative, ...], Field(min_length=1)]
    corrected: bool
    width: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def median_abs_error_pct(self) -> float:
        """Of the sum of terms alone."""
        return float(np.median(np.abs(self.residuals))) * 100

    @property
    def max_abs_error_pct(self) -> float:
        """Of the sum of terms alone."""
        return float(np.abs(self.residuals).max()) * 100

    def seconds(self, at: Mapping[str, float]) -> float:
        """The sum of terms for one call; InvalidInput when a feature is missing."""
        return math.fsum(term.seconds * evaluate(term.name, at) for term in self.terms)

    def predict(
        self, at: Mapping[str, float], points: Sequence[Mapping[str, float]], outside: float = 1.0
    ) -> Prediction:
        """Seconds of one call with an interval.

        Args:
            points: what was measured, in the order of the residuals.
            outside: how many times beyond the measured range; 1: inside.
        """
        value = self.seconds(at)
        if self.corrected and outside <= 1:
            value *= 1.0 + _residual_at(at, points, np.array(self.residuals))
        width = self.width * (1.0 if outside <= 1 else 2.0 * (1.0 + math.log2(outside)))
        return Prediction(value, value / (1.0 + width), value * (1.0 + width), outside > 1)


def evaluate(term: str, at: Mapping[str, float]) -> float:
    """A term's product of features.

    Raises:
        InvalidInput: it names a feature that is not there.
    """
    if term == CONSTANT:
        return 1.0
    try:
        return math.prod(at[name] for name in term.split("*"))
    except KeyError as error:
        raise InvalidInput(
            f"the model needs {error.args[0]!r}", field="at", hint=f"give {', '.join(at)}"
        ) from error


def fit_terms(
    points: Sequence[Mapping[str, float]],
    seconds: Sequence[float],
    terms: Sequence[str],
    noise: float = 0.0,
) -> Fit:
    """The costs that fit best, in the sense of relative squares, disturbed points counting less.

    Args:
        points: features by name.
        seconds: medians, above 0, as many.
        noise: dispersion of the repeats themselves, relative.

    Raises:
        InvalidInput: no points, or a term names an unknown feature.
    """
    if not points:
        raise InvalidInput("nothing was measured", field="samples")
    assert 0 < len(terms) <= _MAX_TERMS, "every subset of them is tried"
    wanted = np.array(seconds)
    values = np.array([[evaluate(term, at) for term in terms] for at in points])
    chosen = _worth_having(points, values, wanted)
    costs = np.zeros(len(terms))
    costs[chosen] = _robust(values[:, chosen], wanted)
    kept = tuple(Term(n, float(c)) for n, c in zip(terms, costs, strict=True))
    residuals = _residuals(values, wanted, costs)
    plain, corrected = _left_out(points, values[:, chosen], wanted)
    better = float(np.quantile(corrected, 0.9)) < float(np.quantile(plain, 0.9))
    errors = corrected if better else plain
    width = max(float(np.quantile(errors, 0.9)), noise, _LEAST_WIDTH)
    return Fit(kept, tuple(residuals.tolist()), better, width)


def _worth_having(points: Sequence[Mapping[str, float]], values: _F64, wanted: _F64) -> list[int]:
    """Columns whose sum predicts points best that were left out; few rather than many.

    With as many terms as points, or nearly, every point would be met, and none between them.
    """
    count = values.shape[1]
    if not _FEW <= len(points) <= _PLENTY * count:
        return list(range(count))
    best, least = list(range(count)), math.inf
    for size in range(1, count + 1):
        for chosen in itertools.combinations(range(count), size):
            plain, _ = _left_out(points, values[:, chosen], wanted)
            error = float(np.log1p(plain).mean())
            if error < least * _WORTH - _NOTHING:
                best, least = list(chosen), error
    return best


def _left_out(
    points: Sequence[Mapping[str, float]], values: _F64, wanted: _F64
) -> tuple[_F64, _F64]:
    """Sizes of the relative errors at points left out: of the sum, and of it corrected."""
    if len(points) < _FEW:
        errors = 2.0 * np.abs(_residuals(values, wanted, _robust(values, wanted)))
        return errors, errors
    plain, corrected = np.empty(len(points)), np.empty(len(points))
    inside = np.array([_inside(at, points) for at in range(len(points))])
    for left in range(len(points)):
        rest = np.arange(len(points)) != left
        costs = _robust(values[rest], wanted[rest])
        others = _residuals(values[rest], wanted[rest], costs)
        around = [point for at, point in enumerate(points) if at != left]
        value = float(values[left] @ costs)
        better = value * (1.0 + _residual_at(points[left], around, others))
        for errors, guess in ((plain, value), (corrected, better)):
            errors[left] = _off(wanted[left], guess)
    # A corner that is left out lies beyond what is left, where no prediction is asked for.
    telling = inside if inside.sum() >= _FEW else np.ones(len(points), dtype=bool)
    return plain[telling], corrected[telling]


def _inside(left: int, points: Sequence[Mapping[str, float]]) -> bool:
    """Whether a point lies in the range of the others."""
    others = [point for at, point in enumerate(points) if at != left]
    return all(
        min(o[name] for o in others) <= value <= max(o[name] for o in others)
        for name, value in points[left].items()
    )


def _off(measured: float, modelled: float) -> float:
    """How many times too long or too short, less 1."""
    low, high = sorted((max(measured, 1e-12), max(modelled, 1e-12)))
    return high / low - 1.0


def _residual_at(
    at: Mapping[str, float], points: Sequence[Mapping[str, float]], residuals: _F64
) -> float:
    """Residuals of the points around, the nearer the more; distance is in doublings."""
    here = np.log2(np.array([at[name] for name in at]) + 1.0)
    there = np.log2(np.array([[point[name] for name in at] for point in points]) + 1.0)
    squares = ((there - here) ** 2).sum(axis=1) + _NEAR**2
    weights = squares**-2
    return float(weights @ residuals / weights.sum())


def _robust(values: _F64, wanted: _F64) -> _F64:
    """Costs of the terms, points that are far off counting less."""
    relative = values / wanted[:, np.newaxis]
    weights = np.ones(len(wanted))
    for _ in range(_ROUNDS):
        costs = _least_squares(relative, weights)
        errors = np.abs(relative @ costs - 1.0)
        weights = 1.0 / (1.0 + (errors / max(_DISTURBED, 3.0 * float(np.median(errors)))) ** 2)
    return costs


def _residuals(values: _F64, wanted: _F64, costs: _F64) -> _F64:
    found: _F64 = wanted / np.maximum(values @ costs, 1e-12) - 1.0
    return found


def _least_squares(relative: _F64, weights: _F64) -> _F64:
    """Costs not below 0 whose relative sum is nearest to 1: the best of all subsets of terms."""
    count = relative.shape[1]
    scale = np.maximum(np.abs(relative).max(axis=0), 1e-300)
    root = np.sqrt(weights)
    columns = relative / scale * root[:, np.newaxis]
    best, best_error = np.zeros(count), math.inf
    for size in range(1, count + 1):
        for chosen in itertools.combinations(range(count), size):
            part = columns[:, chosen]
            found, *_ = np.linalg.lstsq(part, root, rcond=None)
            if (found < 0).any():
                continue
            error = float(((part @ found - root) ** 2).sum())
            # A further term has to earn its place.
            if error < best_error * 0.999:
                best, best_error = np.zeros(count), error
                best[list(chosen)] = found
    costs: _F64 = best / scale
    return costs
