"""Chameleon's accelerator shares and its scaling to many nodes (arXiv 2310.09949)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Literal

from pydantic import ConfigDict

from ragschema.planner.cost.interleaved import Interleaved
from ragschema.planner.cost.network import Latencies, Network, shared_query_s
from ragschema.planner.reproduce.figure import Figure
from ragschema.userfile import checked_yaml

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Configuration:
    """One model of the paper with the latencies measured there."""

    __pydantic_config__ = _STRICT
    name: str
    interval: int
    batch: int
    inference_s: float
    retrieval_s: float
    fpgas: int

    @property
    def label(self) -> str:
        return f"{self.name}, every {self.interval}, batch {self.batch}"

    @property
    def model(self) -> Interleaved:
        return Interleaved(
            self.interval, self.batch, self.inference_s, self.retrieval_s, self.fpgas
        )


@dataclass(frozen=True)
class Scaling:
    """How one node answers batches of a size, and what the paper prints for many nodes."""

    __pydantic_config__ = _STRICT
    batch: int
    growth_pct: float
    latency: Latencies


@dataclass(frozen=True)
class Inputs:
    """``chameleon.yaml``, where every number has its source."""

    __pydantic_config__ = _STRICT
    version: Literal[1]
    configurations: tuple[Configuration, ...]
    gpu_share_pct: tuple[float, ...]
    scaling: tuple[Scaling, ...]
    network: Network
    query_bytes: int
    nodes: int


def inputs() -> Inputs:
    """The calibration file of this reproduction."""
    file = resources.files("ragschema.planner.reproduce").joinpath("chameleon.yaml")
    return checked_yaml(file.read_text(encoding="utf-8"), "chameleon.yaml", Inputs, "see its head")


def shares() -> list[Figure]:
    """Best share of GPUs per configuration, in per cent."""
    given = inputs()
    return [
        Figure(f"{c.label}: GPU share %", paper, c.model.best_share() * 100, 0.05)
        for c, paper in zip(given.configurations, given.gpu_share_pct, strict=True)
    ]


def growth() -> list[Figure]:
    """How much the median query takes longer on 128 nodes than on one, in per cent."""
    given = inputs()
    return [
        Figure(
            f"1 to {given.nodes} nodes, batch {one.batch}: median growth %",
            one.growth_pct,
            (_median_s(given, one, given.nodes) / _median_s(given, one, 1) - 1) * 100,
            0.05,
        )
        for one in given.scaling
    ]


def medians_s() -> dict[int, dict[int, float]]:
    """Median seconds by batch and number of nodes, for drawing."""
    given = inputs()
    counts = [1 << i for i in range(given.nodes.bit_length())]
    return {one.batch: {n: _median_s(given, one, n) for n in counts} for one in given.scaling}


def _median_s(given: Inputs, scaling: Scaling, nodes: int) -> float:
    nbytes = scaling.batch * given.query_bytes
    return shared_query_s(given.network, scaling.latency, nodes, nbytes)


def share_error_points() -> float:
    """Largest distance of a share from the paper's, in percentage points."""
    return max(abs(f.ours - f.paper) for f in shares())
