"""Does a plan keep what it promises, and is it better than what people would have set up?

A model of the shape of Chameleon's Dec-S serves a collection of 100 000 vectors on this machine.
The machine is profiled, plans are made from the profile, deployed, and loads are put on them, at
lengths, batches, rates and collocations that the profile did not visit.

``median_abs_error_pct``, ``p90_abs_error_pct``: TTFT p50 and TPOT p50 at two loads, and requests
per second of a closed loop, predicted against measured, over all deployments. Predictions are for
the very arrivals that were sent.

``p99_ttft_max_error_pct``: the same of p99 of TTFT at 70 % of the plan's rate.

``kendall_tau``: how plans of one workload rank by requests per second, planned and measured.

``goodput_gain``: requests per second within the objectives, at the rate that the plan chosen for
them promises to bear, over those of the rig that nobody planned; ``goodput_gain_best_of_five``:
over the best of five rigs as people would write them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.common import emit, machine, note, options, typed_failures
from bench.fidelity_goodput import goodput
from bench.fidelity_plans import Deployed, deployed, schema_of
from bench.fidelity_run import Work, measured, put
from bench.fidelity_setup import Stand, prepare
from coordinator.load.report import LoadReport
from ragschema.planner.problem import Decoding

PARTS: Final = ("fidelity", "rank", "goodput")
LOADS: Final = (0.5, 0.7)
_MID: Final = Work(question=20, passages=4, output=48)
_LONG: Final = Work(question=30, passages=7, output=24)
_SHORT: Final = Work(question=12, passages=2, output=36)
#: Name, work, decode's place, its batch, cores.
_CASES: Final = (
    ("together", _MID, Decoding.TOGETHER, 8, None),
    ("together-long", _LONG, Decoding.TOGETHER, 4, None),
    ("together-wide", _SHORT, Decoding.TOGETHER, 16, None),
    ("one-core", _SHORT, Decoding.TOGETHER, 4, 1),
    ("apart", _MID, Decoding.APART, 8, None),
)
#: Further plans of the first work, for their rank.
_RANKED: Final = (
    ("rank-1", Decoding.TOGETHER, 1, None),
    ("rank-2", Decoding.TOGETHER, 2, None),
    ("rank-4", Decoding.TOGETHER, 4, None),
    ("rank-16", Decoding.TOGETHER, 16, None),
    ("rank-one-core", Decoding.TOGETHER, 8, 1),
)
_SEED: Final = 2026
_JUDGED: Final = ("ttft_p50_s", "tpot_p50_s", "qps")


def prompt_tokens(stand: Stand, works: tuple[Work, ...]) -> dict[Work, int]:
    """Tokens of a prompt, template and passages included, as the node counts them."""
    reports = measured(stand.rig, [put(work, 4, _SEED, in_flight=1) for work in works])
    counted = [report.tokens.prompt_counted / report.coverage.completed for report in reports]
    return {work: round(tokens) for work, tokens in zip(works, counted, strict=True)}


def fidelity(one: Deployed, work: Work, requests: int) -> dict[str, Any]:
    """Predicted and measured figures of one deployment."""
    puts = [
        put(work, requests, _SEED + n, rate_per_s=load * one.qps) for n, load in enumerate(LOADS)
    ]
    puts.append(closed(one, work, requests))
    reports = measured(one.rig, puts)
    points = {}
    for load, sent, report in zip(LOADS, puts, reports, strict=False):
        assert sent.load.times_s is not None, "an open loop"
        played = one.played(sent.load.times_s).report()
        points[f"{load:g}"] = compared(played, report)
    points["full"] = {"qps": pair(one.qps, steady(reports[-1]))}
    return {"plan": told(one), "points": points}


def compared(played: Mapping[str, float], report: LoadReport) -> dict[str, Any]:
    """TTFT and TPOT, predicted and measured."""
    metrics = report.metrics
    found = {}
    for name in ("ttft", "tpot"):
        for percentile in ("p50", "p99"):
            value_s = getattr(metrics[f"{name}_ms"], percentile) / 1e3
            found[f"{name}_{percentile}_s"] = pair(played[f"{name}_s_{percentile}"], value_s)
    stages = {name: summary.mean for name, summary in report.stages_ms.items()}
    return found | {"stages_ms": stages}


def pair(predicted: float, measured_: float) -> dict[str, float]:
    """Both, and measured over predicted."""
    error = 100 * (measured_ / predicted - 1)
    return {"predicted": predicted, "measured": measured_, "error_pct": error}


def closed(one: Deployed, work: Work, requests: int) -> Any:
    """As many under way as decode has room for, and as many that wait."""
    batch = one.plan.schedule.choices[-1].batch
    return put(work, max(requests, 5 * batch), _SEED + 9, in_flight=2 * batch + 2)


def steady(report: LoadReport) -> float:
    """Answers per second of a closed loop."""
    assert report.steady_per_s is not None, "there were enough answers"
    return report.steady_per_s


def told(one: Deployed) -> dict[str, Any]:
    """What a plan chose."""
    choices = {c.stage: {"count": c.count, "batch": c.batch} for c in one.plan.schedule.choices}
    return {"qps": one.qps, "ttft_s": one.plan.schedule.ttft_s, "choices": choices}


def kendall_tau(pairs: list[tuple[float, float]]) -> float:
    """Pairs of plans in the same order by both, less those in the other, over all pairs."""
    agree = [
        np.sign((a[0] - b[0]) * (a[1] - b[1])) for n, a in enumerate(pairs) for b in pairs[n + 1 :]
    ]
    return float(np.mean(agree))


def run(given: argparse.Namespace, stand: Stand, prompts: dict[Work, int]) -> dict[str, Any]:
    """All parts that are asked for."""
    found: dict[str, Any] = {}
    qps: list[tuple[float, float]] = []
    requests = given.requests
    if "fidelity" in given.only:
        cases = {}
        for name, work, decoding, batch, cores in _CASES:
            note(f"{name}: loads")
            schema = schema_of(stand, work, prompts[work])
            one = deployed(stand, name, schema, decoding, batch, cores)
            cases[name] = fidelity(one, work, requests)
            note(_short(cases[name]))
            if work is _MID:
                full = cases[name]["points"]["full"]["qps"]
                qps.append((full["predicted"], full["measured"]))
        found |= errors_of(cases) | {"cases": cases}
    if "rank" in given.only:
        schema = schema_of(stand, _MID, prompts[_MID])
        for name, decoding, batch, cores in _RANKED:
            note(f"{name}: closed loop")
            one = deployed(
                stand, name, schema_of(stand, _MID, prompts[_MID]), decoding, batch, cores
            )
            (report,) = measured(one.rig, [closed(one, _MID, requests // 2)])
            qps.append((one.qps, steady(report)))
            note(f"  {qps[-1][0]:.3f} planned, {qps[-1][1]:.3f} measured")
        found |= {"kendall_tau": kendall_tau(qps), "ranked_qps": qps}
    if "goodput" in given.only:
        found |= goodput(stand, _MID, prompts[_MID], requests)
    return found


def errors_of(cases: Mapping[str, Any]) -> dict[str, float]:
    """Sizes of the errors over all operating points."""
    judged, tails = [], []
    for case in cases.values():
        for name, point in case["points"].items():
            judged += [
                abs(point[m]["error_pct"])
                for m in ("ttft_p50_s", "tpot_p50_s", "qps")
                if m in point
            ]
            if name == "0.7":
                tails.append(abs(point["ttft_p99_s"]["error_pct"]))
    median, most = np.quantile(judged, (0.5, 0.9)).tolist()
    return {
        "median_abs_error_pct": median,
        "p90_abs_error_pct": most,
        "p99_ttft_max_error_pct": max(tails),
        "operating_points": sum(len(case["points"]) for case in cases.values()),
    }


def _short(case: Mapping[str, Any]) -> str:
    parts = []
    for name, point in case["points"].items():
        for metric in ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "qps"):
            if metric in point:
                p = point[metric]
                parts.append(
                    f"  {name} {metric}: {p['predicted']:.4g} -> {p['measured']:.4g}"
                    f" ({p['error_pct']:+.1f} %)"
                )
    return "\n".join(parts)


def main() -> None:
    """Runs the benchmark."""
    parser = options(__doc__ or "")
    parser.add_argument("--only", default=",".join(PARTS), help="parts: fidelity, rank, goodput")
    parser.add_argument("--requests", type=int, default=80, help="of an open load")
    parser.add_argument("--quick", action="store_true", help="profile fewer points")
    given = parser.parse_args()
    given.only = tuple(part.strip() for part in given.only.split(","))
    if unknown := set(given.only) - set(PARTS):
        parser.error(f"--only: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    with typed_failures(), tempfile.TemporaryDirectory(prefix="ragrig-bench-") as folder:
        stand = prepare(given.data_dir or Path(folder), given.quick)
        note("counting tokens of prompts")
        prompts = prompt_tokens(stand, (_MID, _LONG, _SHORT))
        note(f"  {list(prompts.values())}")
        found = run(given, stand, prompts)
    figures = {k: v for k, v in found.items() if isinstance(v, float | int)}
    rest = {k: v for k, v in found.items() if k not in figures}
    about = {"machine": machine(), "prompt_tokens": list(prompts.values()), "seed": _SEED}
    emit({**figures, **rest, **about}, given)


if __name__ == "__main__":
    main()
