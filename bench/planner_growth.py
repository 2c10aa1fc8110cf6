"""How the planner's search time grows: with chips, with stages, with kinds of chips."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.hardware.calibration import find_calibration
from ragschema.hardware.devices import Accelerator, Host, find_device
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.cost.inference import encode_s
from ragschema.planner.problem import Problem
from ragschema.planner.reproduce.rago import case1, case2, rago_pool
from ragschema.planner.search import search
from ragschema.planner.stages import StageKind, StageTable
from ragschema.pool import ChipPool, NodePool, Pool, tied_pool

_CHIPS = (128, 256, 512, 1024, 2048, 4096)
_STAGES = (3, 4, 5, 6, 7, 8, 9)
_KINDS = ("xpu-c", "xpu-b", "h100-sxm", "xpu-a")


def growth(note: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of one search each; case 2 but for the stages, powers of two throughout."""
    chips = {str(n): _timed(with_chips(n)) for n in _CHIPS}
    note(f"growth with chips {chips}")
    kinds = {str(n): _timed(with_kinds(n, 128 // n)) for n in range(1, len(_KINDS) + 1)}
    note(f"growth with kinds {kinds}")
    stages = {str(n): _timed(with_stages(n)) for n in _STAGES}
    note(f"growth with stages {stages}")
    return {
        "growth_chips_s": chips,
        "growth_kinds_s": kinds,
        "growth_stages_s": stages,
        "two_kinds_1024_s": _timed(with_kinds(2, 512)),
    }


def with_chips(most: int) -> Problem:
    """Case 2 on up to so many chips with the paper's hosts."""
    return problem_of(case2("llama-3-70b", 1_000_000), tied_pool(*_papers(), 64, most))


def with_kinds(kinds: int, each: int) -> Problem:
    """Case 2 on so many of each of some kinds, with 32 free hosts."""
    calibration = find_calibration("rago")
    chips = tuple(ChipPool(calibration.over(_chip(name)), each) for name in _KINDS[:kinds])
    pool = Pool(chips, (NodePool(_papers()[1], 32),), 1, kinds * each)
    return problem_of(case2("llama-3-70b", 1_000_000), pool)


def with_stages(stages: int) -> Problem:
    """Case 1 with encoders of several sizes in front, on 64 chips, batches up to 32."""
    chip, host = _papers()
    space = SearchSpace(max_batch=32)
    base = problem_of(case1("llama-3-8b"), tied_pool(chip, host, 64, 128), space)
    _, prefill, decode = base.stages
    encoders = tuple(_encoder(i, chip, prefill) for i in range(stages - 2))
    return replace(
        base, stages=(*encoders, prefill, decode), chips_per_server=None, min_chips=1, max_chips=64
    )


def _encoder(place: int, chip: Accelerator, like: StageTable) -> StageTable:
    parameters = 1e8 * (2 + 3 * place)
    latency = [
        [encode_s(parameters, chip, 1.0, n, 4 * b, 128) for b in like.batches] for n in like.counts
    ]
    return StageTable(
        f"encode-{place}", StageKind.CHIP, like.counts, like.batches, np.array(latency)
    )


def _papers() -> tuple[Accelerator, Host]:
    pool = rago_pool()
    host = pool.nodes[0].device
    assert isinstance(host, Host), "the paper searches on hosts"
    return pool.chips[0].device, host


def _chip(name: str) -> Accelerator:
    chip = find_device(name)
    assert isinstance(chip, Accelerator), "a device of ours"
    return chip


def _timed(problem: Problem) -> float:
    started_s = time.perf_counter()
    search(problem)
    return round(time.perf_counter() - started_s, 3)


def draw(path: Path, result: dict[str, Any]) -> None:
    """Three panels of search time.

    Raises:
        InvalidInput: the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "ragrig"})
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels: Sequence[Any] = figure.subplots(1, 3)
    for axes, what in zip(panels, ("chips", "stages", "kinds"), strict=True):
        times = result[f"growth_{what}_s"]
        axes.plot([int(n) for n in times], list(times.values()), "o-", color="#1f6feb")
        axes.set_yscale("log")
        if what == "chips":
            axes.set_xscale("log", base=2)
        axes.set_xticks([int(n) for n in times], list(times))
        axes.minorticks_off()
        axes.set_xlabel({"chips": "chips", "stages": "stages", "kinds": "kinds of chips"}[what])
        axes.grid(visible=True, color="#eaeef2")
    panels[0].set_ylabel("seconds of search, one core")
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error}", field="plot") from error
