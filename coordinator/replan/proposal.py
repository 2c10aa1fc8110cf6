"""What the planner is asked, and what it answers: plain data that goes between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.replan.observe import Observed


@dataclass(frozen=True)
class Ask:
    """What to propose for.

    Attributes:
        plan: path of the deployed plan.
        schema, profile: paths of what it was made from.
        most_running: sequences that the nodes which write answers can have under way.
        out: paths of the plans to write: other batches, and other processes.
        limit_s: of a search.
    """

    plan: str
    schema: str
    profile: str | None
    allow_extrapolation: bool
    observed: Observed
    most_running: int
    out: tuple[str, str]
    limit_s: float


@dataclass(frozen=True)
class Option:
    """A plan that could be deployed.

    Attributes:
        figures: percentiles at the observed load.
    """

    plan: str
    cost_s: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Proposal:
    """What was found.

    Attributes:
        before_s: ``cost_s`` of the deployed plan at the observed load.
        batches: with the processes that run; None: theirs are the best.
        placement: with other processes; None: none is better.
        corrected: factors by which stages were seen to differ from the prediction.
    """

    before_s: float
    before: Mapping[str, float]
    batches: Option | None
    placement: Option | None
    corrected: Mapping[str, float] = field(default_factory=dict)
