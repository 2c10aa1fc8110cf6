"""What `bench.retrieval` builds, which settings it tries and how long it measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bench import datasets
from bench.datasets import Dataset, clustered


@dataclass(frozen=True, order=True)
class Setting:
    """One way to search.

    Attributes:
        probes: lists or leaves to scan; the width of the beam (ef) of a graph.
        depth: candidates rescored with their vectors, None for none.
        reach: lists beyond this many times the nearest one's squared distance are not
            scanned; ragrig's alone, None for no such bound.
    """

    probes: int
    depth: int | None = None
    reach: float | None = None

    def __str__(self) -> str:
        text = f"{self.probes}" if self.depth is None else f"{self.probes}/{self.depth}"
        return text if self.reach is None else f"{text} reach {self.reach:g}"


@dataclass(frozen=True)
class ScannBuild:
    """A ScaNN index to try: leaves and the anisotropic threshold, NaN for none."""

    leaves: int
    threshold: float

    @property
    def name(self) -> str:
        threshold = "none" if math.isnan(self.threshold) else f"{self.threshold:g}"
        return f"scann-{self.leaves}-{threshold}"


@dataclass(frozen=True)
class Plan:
    """The whole run; counts, and seconds where it says so.

    Attributes:
        probes: of the comparison with the same codes.
        window: queries of one timed round; every round takes other ones.
        grid_step: every how many settings of a grid are tried.
        pass_s: a timed pass repeats its window until it lasted this long.
    """

    rows: int = 1_000_000
    dim: int = 128
    nlist: int = 1024
    m: int = 16
    k: int = 10
    queries: int = 2048
    seed: int = 1
    probes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    train_rows: int = 131_072
    wanted_recall: float = 0.95
    rounds: int = 3
    window: int = 256
    pass_s: float = 0.1
    grid_step: int = 1
    scann: tuple[ScannBuild, ...] = (
        ScannBuild(500, 0.2),
        ScannBuild(1000, 0.2),
        ScannBuild(1000, math.nan),
        ScannBuild(2000, 0.2),
    )
    graph_degree: int = 16
    graph_build_ef: int = 100

    def dataset(self) -> Dataset:
        """Draws the data, in seconds."""
        return clustered(self.rows, self.dim, seed=self.seed, queries=self.queries)

    def folder(self, dataset: Dataset) -> Path:
        """Where built indexes are kept."""
        return datasets.CACHE / f"{dataset.key}-nlist{self.nlist}-m{self.m}-t{self.train_rows}"

    def grid(self, contestant: str) -> list[Setting]:
        """Settings to try, given a contestant's name."""
        kind, _, detail = contestant.partition("-")
        probes, depths = _GRIDS[kind]
        if kind == "scann":  # its best leaf count differs, so probes are shares of it
            leaves = int(detail.partition("-")[0])
            probes = sorted({max(1, leaves * p // 1000) for p in probes})
        settings = [Setting(p, d) for p, d in product(probes, depths)]
        if kind == "ragrig":
            settings += [Setting(p, d, r) for p, d, r in product(*_REACHING)]
        return settings[:: self.grid_step]


_Grid = tuple[Sequence[int], Sequence[int | None]]
_PROBES = (8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 36, 40)
_DEPTHS = (20, 25, 30, 35, 40, 45, 50, 55, 60, 70, 80, 100, 150)
#: By kind of contestant; wide enough that the best point lies inside.
_GRIDS: dict[str, _Grid] = {
    "ragrig": (_PROBES, _DEPTHS),
    "ivfpq": ((8, 16, 28, 32), (40, 60, 100)),
    "fastscan": (_PROBES, _DEPTHS),
    "scann": ((8, 12, 16, 20, 24, 30, 40, 60), (20, 30, 40, 60, 100)),  # per mille of leaves
    "hnswlib": ((20, 30, 40, 50, 60, 80, 120, 200), (None,)),
}
#: Probes, depths and reaches that ragrig tries besides.
_REACHING = ((28, 32, 36, 40, 48), (40, 45, 50, 55, 60, 70, 80), (1.6, 1.65, 1.7, 1.8))


def quick() -> Plan:
    """A smoke test: the figures mean nothing."""
    return Plan(
        rows=100_000,
        nlist=128,
        queries=256,
        train_rows=16_384,
        rounds=2,
        window=64,
        pass_s=0.0,
        grid_step=7,
        scann=(ScannBuild(300, 0.2),),
    )
