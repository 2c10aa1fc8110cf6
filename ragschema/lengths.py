"""How many tokens requests have: one number, percentiles, or a column of a trace."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Discriminator, Field, Tag

from ragschema.errors import InvalidInput
from ragschema.tracefile import TraceName, trace_column

_STRICT = ConfigDict(extra="forbid", strict=True)
#: Equally likely lengths that stand for a distribution.
_POINTS = 1000

Tokens = Annotated[int, Field(ge=1, le=100_000_000)]


@dataclass(frozen=True)
class PercentilesConfig:
    """Lengths by percentile, straight lines between them.

    Attributes:
        min: shortest.
        p50, p99: half, and 99 of 100 requests, have at most so many tokens.
        p10, p90: where they are known.
        max: longest; None: ``p99``.
    """

    __pydantic_config__ = _STRICT
    p50: Tokens
    p99: Tokens
    min: Tokens = 1
    p10: Tokens | None = None
    p90: Tokens | None = None
    max: Tokens | None = None


@dataclass(frozen=True)
class TraceLengthsConfig:
    """Lengths that a trace has in one column.

    Attributes:
        trace: path of a .csv, .jsonl or .jsonl.gz file.
    """

    __pydantic_config__ = _STRICT
    trace: TraceName
    column: str


def _form(given: object) -> str:
    if isinstance(given, TraceLengthsConfig) or (
        isinstance(given, dict) and not given.keys().isdisjoint(("trace", "column"))
    ):
        return "(trace)"
    return "(percentiles)" if isinstance(given, dict | PercentilesConfig) else "(tokens)"


# Which form is meant is told before it is checked: a mistake is then one of that form. Tags
# in brackets are left out of messages.
LengthConfig = Annotated[
    Annotated[Tokens, Tag("(tokens)")]
    | Annotated[PercentilesConfig, Tag("(percentiles)")]
    | Annotated[TraceLengthsConfig, Tag("(trace)")],
    Discriminator(_form),
]


@dataclass(frozen=True)
class LengthsConfig:
    """Tokens of a request.

    Attributes:
        question: what the user asks.
        prompt: what the model reads, question and passages together.
        output: what it writes.
    """

    __pydantic_config__ = _STRICT
    question: LengthConfig = 32
    prompt: LengthConfig = 512
    output: LengthConfig = 256


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths.

    Attributes:
        values: equally likely, ascending, in tokens.
    """

    values: tuple[float, ...]

    @cached_property
    def array(self) -> NDArray[np.float64]:
        """float64 [values]."""
        return np.array(self.values)

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def fixed(self) -> bool:
        """All requests are as long."""
        return self.values[0] == self.values[-1]


def lengths_of(config: LengthConfig, field: str) -> Lengths:
    """The distribution that a schema gives.

    Args:
        field: where it stands, for messages.

    Raises:
        InvalidInput: percentiles fall, or the trace has no such lengths.
        NotFound: there is no such trace.
    """
    if isinstance(config, int):
        return Lengths((float(config),))
    if isinstance(config, PercentilesConfig):
        return _between(config, field)
    values = trace_column(Path(config.trace), config.column, f"{field}.column")
    wrong = values[~(values >= 1)]
    if len(wrong):
        raise InvalidInput(
            f"{config.trace}: a length of {wrong[0]:g} tokens in column {config.column!r}",
            field=f"{field}.column",
            hint="drop requests without tokens from the trace",
        )
    if len(values) <= _POINTS:
        return Lengths(tuple(np.sort(values).tolist()))
    return Lengths(tuple(np.quantile(values, _middles()).tolist()))


def _between(config: PercentilesConfig, field: str) -> Lengths:
    marks = [
        (0.0, "min", config.min),
        (0.1, "p10", config.p10),
        (0.5, "p50", config.p50),
        (0.9, "p90", config.p90),
        (0.99, "p99", config.p99),
        (1.0, "max", config.max or config.p99),
    ]
    known = [(share, name, tokens) for share, name, tokens in marks if tokens is not None]
    for (_, low, less), (_, high, more) in itertools.pairwise(known):
        if more < less:
            raise InvalidInput(
                f"{high} is {more}, and {low} is {less}",
                field=f"{field}.{high}",
                hint=f"give at least {less}",
            )
    shares, tokens = [share for share, _, _ in known], [tokens for _, _, tokens in known]
    return Lengths(tuple(np.interp(_middles(), shares, tokens).tolist()))


def _middles() -> NDArray[np.float64]:
    middles: NDArray[np.float64] = (np.arange(_POINTS) + 0.5) / _POINTS
    return middles
