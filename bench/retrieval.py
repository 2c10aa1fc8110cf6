"""How fast is ragrig's IVF-PQ search beside the libraries of its kind?

In process, one thread, clustered data (``bench.datasets``), recall@k against exact
search. Two questions:

The same codes. faiss trains one IndexIVFPQ; ragrig searches its lists, codebooks
and codes. ``nprobe{N}_b{B}`` is ragrig's queries per second over IndexIVFPQ's at
that nprobe and batch size. Both must find the same: recall may differ by 0.002.

A wanted recall. Candidates are rescored with stored vectors. Every contestant is
timed over a grid of its settings, and its fastest with recall >= 0.95 counts:
``vs_best_fastscan_refined`` against the better of IndexIVFPQFastScan 32x4 and 64x4
under IndexRefineFlat, ``vs_scann`` against the best of several ScaNN trees. Ours may
leave out lists beyond a reach; ``vs_best_fastscan_refined_by_nprobe`` is without.
IndexIVFPQ with refinement and hnswlib stand beside them, with their memory.

All contestants run in turn in one process with one thread each and passive waits,
for two OpenMP runtimes that spin would slow each other down; ``cpu_per_wall`` is
the proof. A peer that is not installed is named under ``missing`` and its figures
are null. Built indexes stay under ``build/bench``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import emit, machine, note, options, typed_failures
from bench.datasets import Dataset, ground_truth
from bench.retrieval_ours import open_ragrig
from bench.retrieval_peers import Contestant, FaissIvfPq, FastScan, Hnsw, Scann
from bench.retrieval_plan import Plan, Setting, quick
from bench.retrieval_plot import draw
from bench.retrieval_race import Course, Point, best, frontier, promising, ratio
from ragschema.errors import Unavailable
from ragschema.procs import calm_thread_pools

KINDS = ("ragrig", "ivfpq", "fastscan", "scann", "hnswlib")
_CURVE = Path("docs/img/retrieval_curve.svg")
_RESULT = Path("bench/results/retrieval.json")
_MOST_RECALL_APART = 0.002
_BATCHES = (1, 64)
_FIGURES = ((8, 64), (32, 1), (32, 64), (128, 64))
_SINGLE = ((8, 1), (32, 1), (128, 1))

Missing = dict[str, str]


def line_up(plan: Plan, data: Dataset, kinds: Sequence[str], missing: Missing) -> list[Contestant]:
    """Opens the contestants; who cannot be opened is named in ``missing``."""
    openers: dict[str, Callable[[], Sequence[Contestant]]] = {
        "ragrig": lambda: open_ragrig(plan, data),
        "ivfpq": lambda: [FaissIvfPq(plan, data)],
        "fastscan": lambda: [FastScan(plan, data, m) for m in (2 * plan.m, 4 * plan.m)],
        "scann": lambda: [Scann(plan, data, choice) for choice in plan.scann],
        "hnswlib": lambda: [Hnsw(plan, data)],
    }
    opened: list[Contestant] = []
    for kind in KINDS:
        if kind not in kinds:
            missing[kind] = "left out by --only"
            continue
        try:
            opened += openers[kind]()
        except Unavailable as error:
            missing[kind] = str(error)
    return opened


def same_codes(course: Course, contestants: Sequence[Contestant]) -> list[Point]:
    """Scans without rescoring, in turn; the kind of our vectors plays no part in it."""
    kinds = ("ragrig-float32", "ivfpq", "fastscan")
    coded = [c for c in contestants if c.name.startswith(kinds)]
    points = [
        course.trial(Point(contestant, Setting(probes), batch))
        for contestant in coded
        for probes in course.plan.probes
        for batch in _BATCHES
        if batch == _BATCHES[-1] or (probes, batch) in _SINGLE
    ]
    course.race(points)
    return points


def refined(course: Course, contestants: Sequence[Contestant]) -> dict[str, list[Point]]:
    """The timed settings of every contestant, by its name; of all ScaNN trees together."""
    tried: dict[str, list[Point]] = {}
    for contestant in contestants:
        note(f"trying the settings of {contestant.name}")
        name = "scann" if _kind(contestant.name) == "scann" else contestant.name
        settings = course.plan.grid(contestant.name)
        trials = [course.trial(Point(contestant, s, _BATCHES[-1])) for s in settings]
        tried.setdefault(name, []).extend(trials)
    chosen = {name: promising(points) for name, points in tried.items()}
    course.race([point for points in chosen.values() for point in points])
    return chosen


def code_figures(points: Sequence[Point], missing: Missing) -> dict[str, Any]:
    """The ratios to IndexIVFPQ, null where the recall differs."""
    by_key = {(p.contestant.name, p.setting.probes, p.batch): p for p in points}
    figures: dict[str, Any] = {}
    equality: dict[str, Any] = {}
    for probes, batch in _FIGURES:
        name = f"nprobe{probes}_b{batch}"
        ours = by_key.get(("ragrig-float32", probes, batch))
        theirs = by_key.get(("ivfpq", probes, batch))
        figures[name] = None
        if ours is None or theirs is None:
            continue
        apart = abs(ours.recall - theirs.recall)
        equality[name] = {
            "ragrig": round(ours.recall, 4),
            "ivfpq": round(theirs.recall, 4),
            "apart": round(apart, 5),
            "same_rows": round(float(np.mean(ours.found == theirs.found)), 4),
        }
        note(f"{name}: recall {ours.recall:.4f}, of faiss {theirs.recall:.4f}")
        if apart <= _MOST_RECALL_APART:
            figures[name] = ratio(ours, theirs)
        else:
            missing[name] = f"recall differs by {apart:.4f}"
    return figures | {"equal_recall": equality}


def refined_figures(chosen: Mapping[str, Sequence[Point]], wanted: float) -> dict[str, Any]:
    """Best points at the wanted recall, and ours over theirs."""
    winners = {kind: _winner(chosen, kind, wanted) for kind in KINDS}
    ours = winners["ragrig"]

    def over(kind: str) -> float | None:
        theirs = winners[kind]
        return None if ours is None or theirs is None else ratio(ours, theirs)

    same_kind = [p for n, ps in chosen.items() if _kind(n) == "ragrig" for p in ps]
    plain = best((p for p in same_kind if p.setting.reach is None), wanted)
    fastscan = winners["fastscan"]
    by_nprobe = None if plain is None or fastscan is None else ratio(plain, fastscan)
    each = {name: best(points, wanted) for name, points in chosen.items()}
    return {
        "vs_best_fastscan_refined": over("fastscan"),
        "vs_best_fastscan_refined_by_nprobe": by_nprobe,
        "vs_scann": over("scann"),
        "vs_ivfpq_refined": over("ivfpq"),
        "vs_hnswlib": over("hnswlib"),
        "wanted_recall": wanted,
        "refined": {
            name: None if point is None else point.as_dict() | _index_of(point)
            for name, point in each.items()
        },
    }


def _winner(chosen: Mapping[str, Sequence[Point]], kind: str, wanted: float) -> Point | None:
    return best(
        (p for name, points in chosen.items() if _kind(name) == kind for p in points), wanted
    )


def _kind(name: str) -> str:
    return name.partition("-")[0]


def _index_of(point: Point) -> dict[str, Any]:
    contestant = point.contestant
    return {"index": contestant.name, "memory_mib": round(contestant.memory_bytes / 2**20, 1)}


def measure(plan: Plan, kinds: Sequence[str], curve: Path | None) -> dict[str, Any]:
    """Everything, in this process; indexes that are not built yet are built here."""
    data = plan.dataset()
    missing: Missing = {}
    contestants = line_up(plan, data, kinds, missing)
    course = Course(plan, data.queries, ground_truth(data, plan.k))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    codes = same_codes(course, contestants)
    chosen = refined(course, contestants)
    busy = (time.process_time() - cpu_s) / (time.perf_counter() - wall_s)
    result = code_figures(codes, missing)
    result |= refined_figures(chosen, plan.wanted_recall)
    if curve is not None:
        draw(curve, plan, codes, chosen)
    return result | {
        "codes_qps": [p.as_dict() | {"name": p.contestant.name} for p in codes],
        "curves": {name: [p.as_dict() for p in frontier(ps)] for name, ps in chosen.items()},
        "missing": missing,
        "cpu_per_wall": round(busy, 3),
        "data": data.key,
        "seed": plan.seed,
        "nlist": plan.nlist,
        "m": plan.m,
        "k": plan.k,
    }


def _build(given: argparse.Namespace) -> None:
    """Builds in another process, which may use every core."""
    command = [sys.executable, "-m", "bench.retrieval_build", *given.only]
    if given.quick:
        command.append("--quick")
    subprocess.run(command, check=True)


def _single_threaded() -> None:
    """Starts this program again unless the libraries it loads were told to be calm.

    They read the environment when they are loaded, which importing already does.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1" and os.environ.get("OMP_WAIT_POLICY") == "PASSIVE":
        return
    calm_thread_pools(1)
    os.execv(sys.executable, [sys.executable, "-m", "bench.retrieval", *sys.argv[1:]])


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--quick", action="store_true", help="a smoke test on 100 000 rows")
    parser.add_argument(
        "--only", nargs="+", choices=KINDS, default=list(KINDS), help="contestants to run"
    )
    parser.set_defaults(out=None)
    given = parser.parse_args()
    _build(given)
    plan = quick() if given.quick else Plan()
    complete = not given.quick and set(given.only) == set(KINDS)
    if complete and given.out is None:
        given.out = _RESULT
    result = measure(plan, given.only, _CURVE if complete else None)
    emit(result | {"machine": machine()}, given)


if __name__ == "__main__":
    _single_threaded()
    with typed_failures():
        main()
