"""Which kinds of requests there are, and when they come: classes and arrivals of a RAGSchema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput
from ragschema.lengths import LengthConfig
from ragschema.tracefile import TraceName

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class ClassLengthsConfig:
    """Tokens of a class's requests; None: as in the schema's own lengths."""

    __pydantic_config__ = _STRICT
    prompt: LengthConfig | None = None
    output: LengthConfig | None = None


@dataclass(frozen=True)
class ClassConfig:
    """Requests of one kind.

    Attributes:
        share: of all requests.
        retrieves: False: it passes encoder, retrieval and reranker by, and its prompt is
            the question unless ``lengths.prompt`` is given.
        rewrites, reranks: False: it passes that stage by.
        per_sequence: retrievals per answer; None: as the schema's.
    """

    __pydantic_config__ = _STRICT
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    share: Annotated[float, Field(gt=0, le=1)]
    retrieves: bool = True
    rewrites: bool = True
    reranks: bool = True
    per_sequence: Annotated[int, Field(ge=1, le=4096)] | None = None
    lengths: ClassLengthsConfig = field(default_factory=ClassLengthsConfig)


@dataclass(frozen=True)
class ArrivalsConfig:
    """How requests come; their rate is the plan's, times the objectives' load.

    Attributes:
        process: ``poisson``; ``gamma``, with gaps of a coefficient of variation ``cv``, above
            1 for clumps; ``bursts`` of ``size`` at once, evenly apart; or the gaps of a
            ``trace``, scaled to the rate.
        column: of the trace, with seconds.
    """

    __pydantic_config__ = _STRICT
    process: Literal["poisson", "gamma", "bursts", "trace"] = "poisson"
    cv: Annotated[float, Field(gt=0, le=100)] | None = None
    size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    trace: TraceName | None = None
    column: str = "timestamp"


def check_classes(classes: tuple[ClassConfig, ...], source: str) -> None:
    """Raises InvalidInput unless names differ and shares add up to 1."""
    names = [each.name for each in classes]
    for at, name in enumerate(names):
        if names.index(name) != at:
            raise InvalidInput(
                f"{source}: {name!r} stands twice",
                field=f"classes.{at}.name",
                hint="give each class a name of its own",
            )
    total = sum(each.share for each in classes)
    if classes and abs(total - 1) > 1e-6:
        raise InvalidInput(
            f"{source}: the shares add up to {total:g}",
            field="classes.share",
            hint="make them add up to 1",
        )


def check_arrivals(arrivals: ArrivalsConfig, source: str) -> None:
    """Raises InvalidInput where a figure of the process is missing, or is another's."""
    wanted = {"gamma": "cv", "bursts": "size", "trace": "trace"}.get(arrivals.process)
    for key in ("cv", "size", "trace"):
        given = getattr(arrivals, key) is not None
        if given != (key == wanted):
            raise InvalidInput(
                f"{source}: {arrivals.process} arrivals {'have no' if given else 'need'} {key}",
                field=f"arrivals.{key}",
                hint=f"{'leave it out of' if given else 'give it for'} process {arrivals.process}",
            )
