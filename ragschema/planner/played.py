"""What every request of a simulation met, and what counts as served well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.stages import F64


@dataclass(frozen=True)
class Limits:
    """What counts as served well; None: anything does."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


@dataclass(frozen=True, eq=False)
class Played:
    """What every request met.

    Attributes:
        arrival_s, first_token_s, end_s: float64 [n], on the simulation's clock.
        wait_s: by stage, float64 [n], from reaching the stage to its batch's start.
        busy_share: by group of stages, of the time from first arrival to last end.
        output: float64 [n], tokens.
        classes: of requests, by name bool [n]; empty where all are alike.
        service_s: by stage before decode, mean seconds of a request in its batch; 0 of those
            that pass it by.
        steps: float64 [n], of decode after the first token; None: as many as tokens.
        refused: requests that were not let in, and are none of these.
    """

    arrival_s: F64
    first_token_s: F64
    end_s: F64
    wait_s: Mapping[str, F64]
    busy_share: Mapping[str, float]
    output: F64
    classes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    service_s: Mapping[str, float] = field(default_factory=dict)
    steps: F64 | None = None
    refused: int = 0

    @property
    def refused_share(self) -> float:
        """Of all requests that came."""
        return self.refused / (self.refused + len(self.arrival_s))

    @property
    def ttft_s(self) -> F64:
        return self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> F64:
        steps = self.output if self.steps is None else self.steps
        return (self.end_s - self.first_token_s) / steps

    @property
    def e2e_s(self) -> F64:
        """From arrival to the last token."""
        return self.end_s - self.arrival_s

    def goodput_per_s(self, limits: Limits) -> float:
        """Requests per second that meet every limit."""
        good = np.ones(len(self.arrival_s), dtype=bool)
        if limits.ttft_s is not None:
            good &= self.ttft_s <= limits.ttft_s
        if limits.tpot_s is not None:
            good &= self.tpot_s <= limits.tpot_s
        if limits.e2e_s is not None:
            good &= self.e2e_s <= limits.e2e_s
        span = float(self.end_s.max() - self.arrival_s.min())
        return float(good.sum()) / span

    def report(self, limits: Limits | None = None) -> dict[str, float]:
        """Means and percentiles, flat."""
        found = {"requests": float(len(self.arrival_s))}
        met = {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "e2e_s": self.e2e_s}
        for name, values in met.items():
            found[f"{name}_mean"] = float(values.mean())
            found[f"{name}_p50"], found[f"{name}_p99"] = np.percentile(values, [50, 99]).tolist()
            for kind, mine in self.classes.items():
                half, most = np.percentile(values[mine], [50, 99]).tolist()
                found |= {f"{name}_p50.{kind}": half, f"{name}_p99.{kind}": most}
        for stage, waits in self.wait_s.items():
            found[f"wait_s_mean.{stage}"] = float(waits.mean())
        for group, share in self.busy_share.items():
            found[f"busy_share.{group}"] = share
        found["goodput_per_s"] = self.goodput_per_s(limits or Limits())
        return found
