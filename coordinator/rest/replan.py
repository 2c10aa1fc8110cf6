"""Live re-planning in the status: its published shape, and how a view becomes it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from coordinator.replan.view import Told, View
from coordinator.rest.encode import JsonObject

_NonNegative = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=0)]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OutReply(_Reply):
    """A figure that is out of the plan's range."""

    what: str
    value: float
    low: float
    high: float


class ObservedReply(_Reply):
    """What requests of the window were; null: nothing tells."""

    span_s: _NonNegative
    arrivals_per_s: _NonNegative
    answers: _Count
    prompt_tokens: float | None
    output_tokens: float | None
    prefix_hit: float | None
    stages_s: dict[str, float]


class ConclusionReply(_Reply):
    """What the last planning came to.

    `before_s` and `after_s` are predicted: mean seconds of an answer at the observed load, times
    how far the worst objective is missed. `note` tells why a better plan was not deployed.
    """

    at: str
    kind: Literal["batches", "processes", "none"]
    applied: bool
    reason: str
    changes: list[str]
    before_s: _NonNegative
    after_s: _NonNegative
    gain: _NonNegative
    plan: str
    note: str


class ReplanReply(_Reply):
    """Live re-planning; `observed` is null while there are too few requests to tell."""

    mode: Literal["propose", "auto"]
    state: Literal["watching", "planning", "deploying"]
    plan: str
    observed: ObservedReply | None
    out_of_range: list[OutReply]
    dwell_left_s: _NonNegative
    last: ConclusionReply | None
    error: str | None
    plannings: _Count
    proposals: _Count
    failures: _Count
    changes: dict[str, int]


def replan_json(view: View) -> JsonObject:
    """As ``ReplanReply`` describes it."""
    observed = view.observed
    return {
        "mode": view.mode,
        "state": view.state,
        "plan": view.plan,
        "observed": None
        if observed is None
        else {
            "span_s": observed.span_s,
            "arrivals_per_s": observed.arrivals_per_s,
            "answers": observed.answers,
            "prompt_tokens": observed.prompt,
            "output_tokens": observed.output,
            "prefix_hit": observed.prefix_hit,
            "stages_s": dict(observed.stages_s),
        },
        "out_of_range": [
            {"what": o.what, "value": o.value, "low": o.bounds.low, "high": o.bounds.high}
            for o in view.out
        ],
        "dwell_left_s": view.dwell_left_s,
        "last": None if view.last is None else _told_json(view.last),
        "error": view.error,
        "plannings": view.asked,
        "proposals": view.proposed,
        "failures": view.failed,
        "changes": dict(view.applied),
    }


def _told_json(told: Told) -> JsonObject:
    return asdict(told) | {"gain": told.gain}
