"""How does the engine compare with transformers' own ways to generate?

Parts that need a GPU, or that nothing is there for yet, are named under ``not_run``.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.common import emit, machine, note, options, typed_failures
from bench.llm_model import DEC_S, Job, jobs, save_model
from bench.llm_peers import ContinuousSetting, Outcome, continuous, load_reference, padded_batches
from llm_node.engine.config import EngineConfig
from ragschema.procs import calm_thread_pools

_PARTS = ("throughput", "prefix", "itl", "embed", "gpu")
_CONTINUOUS = (
    ContinuousSetting("sdpa", 32, 1024, 256),
    ContinuousSetting("sdpa", 32, 1024, 512),
    ContinuousSetting("sdpa", 16, 2048, 128),
)
_LATER = {
    "disagg_overhead_pct": "python -m bench.llm_disagg --json measures it, between processes",
}


def main() -> None:
    """Prints the ratios of one run."""
    parser = options(__doc__ or "")
    parser.add_argument("--only", choices=_PARTS, help="run one part")
    parser.add_argument("--seed", type=int, default=1, help="of weights and requests")
    parser.add_argument("--requests", type=int, default=48)
    given = parser.parse_args()
    # Before anything imports torch, which reads them once.
    calm_thread_pools(2)
    import torch

    torch.set_num_threads(2)
    with typed_failures(), tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"question": "the engine beside transformers", "seed": given.seed}
        not_run = dict(_LATER)
        wanted = [part for part in _PARTS if given.only in (None, part)]
        if "gpu" in wanted and not torch.cuda.is_available():
            not_run["gpu"] = "there is no CUDA device"
            wanted.remove("gpu")
        directory = Path(folder) / "dec-s"
        if "embed" in wanted and importlib.util.find_spec("sentence_transformers") is None:
            not_run["embed"] = "sentence-transformers is not installed"
            wanted.remove("embed")
        if set(wanted) - {"gpu", "embed"}:
            save_model(directory, DEC_S, given.seed)
        for part in wanted:
            note(f"{part} ...")
            result |= _run(part, directory, given.seed, given.requests)
        not_run |= {p: "left out with --only" for p in _PARTS if given.only not in (None, p)}
        emit({**result, "not_run": not_run, "machine": machine()}, given)


def _run(part: str, directory: Path, seed: int, count: int) -> dict[str, Any]:
    from bench.llm_embed import embed_ratio
    from bench.llm_gpu import measure
    from bench.llm_ours import itl_ratio, prefix_ratio

    vocabulary = DEC_S["vocab_size"]
    assert isinstance(vocabulary, int), "a shape of ours"
    config = EngineConfig(threads=2, max_running=48)
    if part == "throughput":
        return compare(directory, jobs(count, seed, vocabulary), config)
    if part == "prefix":
        return {"prefix_ttft_ratio": round(prefix_ratio(directory, config, seed, vocabulary), 2)}
    if part == "itl":
        return itl_ratio(directory, config, seed, vocabulary)
    if part == "embed":
        return embed_ratio(seed)
    measured = measure(seed)
    return {"decode_bandwidth_fraction": measured["decode_bandwidth_fraction"], "gpu": measured}


def compare(directory: Path, work: Sequence[Job], config: EngineConfig) -> dict[str, Any]:
    """Throughput of everybody on the same requests, all there at the start.

    We run before, between and after the others, since a shared machine changes its
    speed; ratios take the median of our runs.
    """
    from bench.llm_ours import throughput

    ours, ttfts_s = [], []

    def run_ours() -> None:
        outcome, ttft_s = throughput(directory, work, config)
        ours.append(outcome)
        ttfts_s.append(ttft_s)
        _tell("ours", outcome)

    run_ours()
    reference = load_reference(directory)
    found: dict[str, Outcome | str] = {}
    found["static"] = static = padded_batches(reference, work, 8, static=False)
    _tell("static", static)
    found["static_cache"] = _attempt(partial(padded_batches, reference, work, 8, static=True))
    _tell("static cache", found["static_cache"])
    del reference
    run_ours()
    for setting in _CONTINUOUS:
        found[repr(setting)] = _attempt(partial(continuous, directory, work, setting))
        _tell("continuous", found[repr(setting)])
    run_ours()
    equal = (a == b for a, b in zip(ours[0].tokens, static.tokens, strict=True))
    return {
        **ratios(ours, found, [repr(setting) for setting in _CONTINUOUS]),
        "ours_ttft_mean_s": round(statistics.median(ttfts_s), 2),
        "requests_with_equal_tokens": sum(equal),
        "requests": len(work),
    }


def ratios(
    ours: Sequence[Outcome], found: dict[str, Outcome | str], continuous_names: Sequence[str]
) -> dict[str, Any]:
    """Throughput ratios by wall time, and beside them by processor time.

    Where something else runs on the machine, processor time is the steadier of the two.
    """
    result: dict[str, Any] = {}
    done = {name: outcome for name, outcome in found.items() if isinstance(outcome, Outcome)}
    for attribute, unit in (("wall_s", ""), ("cpu_s", "_by_cpu")):
        own_s = statistics.median(getattr(outcome, attribute) for outcome in ours)
        taken_s = {name: getattr(outcome, attribute) for name, outcome in done.items()}
        settings = [taken_s[name] for name in continuous_names if name in taken_s]
        taken_s["continuous"] = min(settings, default=None)
        for name in ("static", "static_cache", "continuous"):
            spent_s = taken_s.get(name)
            result[f"throughput_vs_{name}{unit}"] = spent_s and round(spent_s / own_s, 2)
    result["tokens_per_s"] = {
        "ours": [round(outcome.tokens_per_s, 1) for outcome in ours],
        **{name: _rate(outcome) for name, outcome in found.items()},
    }
    result["cpu_s"] = {
        "ours": [round(outcome.cpu_s, 1) for outcome in ours],
        **{name: round(outcome.cpu_s, 1) for name, outcome in done.items()},
    }
    return result


def _attempt(run: Callable[[], Outcome]) -> Outcome | str:
    """An outcome, or why a contestant did not finish."""
    try:
        return run()
    except Exception as error:  # foreign code: its failure is a result
        return f"{type(error).__name__}: {error}"


def _rate(outcome: Outcome | str) -> float | str:
    return outcome if isinstance(outcome, str) else round(outcome.tokens_per_s, 1)


def _tell(name: str, outcome: Outcome | str) -> None:
    spent = f", {outcome.cpu_s:.0f} s of CPU" if isinstance(outcome, Outcome) else ""
    note(f"{name}: {_rate(outcome)} tokens/s{spent}")


if __name__ == "__main__":
    main()
