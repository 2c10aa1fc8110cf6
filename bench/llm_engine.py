"""How does the engine compare with transformers' own ways to generate?

Parts that need a GPU, or that nothing is there for yet, are named under ``not_run``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.common import emit, machine, note, options, typed_failures
from bench.llm_gpu import measure
from bench.llm_model import DEC_S, Job, jobs, save_model
from bench.llm_ours import itl_ratio, prefix_ratio, throughput
from bench.llm_peers import ContinuousSetting, Outcome, continuous, load_reference, padded_batches
from llm_node.engine.config import EngineConfig

_PARTS = ("throughput", "prefix", "itl", "gpu")
_CONTINUOUS = (
    ContinuousSetting("sdpa", 32, 1024, 256),
    ContinuousSetting("sdpa", 32, 1024, 512),
    ContinuousSetting("sdpa", 16, 2048, 128),
)
_LATER = {
    "disagg_overhead_pct": "python -m bench.llm_disagg --json measures it, between processes",
    "embed_throughput_ratio": "the encoder is not compared yet",
}


def main() -> None:
    """Prints the ratios of one run."""
    parser = options(__doc__ or "")
    parser.add_argument("--only", choices=_PARTS, help="run one part")
    parser.add_argument("--seed", type=int, default=1, help="of weights and requests")
    parser.add_argument("--requests", type=int, default=48)
    given = parser.parse_args()
    # Two OpenMP runtimes that spin against each other would spoil every figure.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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
        if set(wanted) - {"gpu"}:
            save_model(directory, DEC_S, given.seed)
        for part in wanted:
            note(f"{part} ...")
            result |= _run(part, directory, given.seed, given.requests)
        not_run |= {p: "left out with --only" for p in _PARTS if p not in wanted and p != "gpu"}
        emit({**result, "not_run": not_run, "machine": machine()}, given)


def _run(part: str, directory: Path, seed: int, count: int) -> dict[str, Any]:
    vocabulary = DEC_S["vocab_size"]
    assert isinstance(vocabulary, int), "a shape of ours"
    config = EngineConfig(threads=2, max_running=48)
    if part == "throughput":
        return compare(directory, jobs(count, seed, vocabulary), config)
    if part == "prefix":
        return {"prefix_ttft_ratio": round(prefix_ratio(directory, config, seed, vocabulary), 2)}
    if part == "itl":
        return itl_ratio(directory, config, seed, vocabulary)
    return {"gpu": measure(seed)}


def compare(directory: Path, work: Sequence[Job], config: EngineConfig) -> dict[str, Any]:
    """Throughput of everybody on the same requests, all there at the start."""
    ours, ttft_s = throughput(directory, work, config)
    note(f"ours: {ours.tokens_per_s:.1f} tokens/s")
    reference = load_reference(directory)
    found = {"static": padded_batches(reference, work, 8, static=False)}
    note(f"static: {found['static'].tokens_per_s:.1f}")
    found["static_cache"] = padded_batches(reference, work, 8, static=True)
    note(f"static cache: {found['static_cache'].tokens_per_s:.1f}")
    rates: dict[str, str | float] = {}
    best = 0.0
    for setting in _CONTINUOUS:
        rates[repr(setting)] = rate = _rate(partial(continuous, directory, work, setting))
        best = max(best, rate if isinstance(rate, float) else 0.0)
        note(f"continuous: {rate}")
    rate = ours.tokens_per_s
    return {
        "throughput_vs_static": round(rate / found["static"].tokens_per_s, 2),
        "throughput_vs_static_cache": round(rate / found["static_cache"].tokens_per_s, 2),
        "throughput_vs_continuous": round(rate / best, 2) if best else None,
        "tokens_per_s": {
            "ours": round(rate, 1),
            **{name: round(outcome.tokens_per_s, 1) for name, outcome in found.items()},
            "continuous": rates,
        },
        "ours_ttft_mean_s": round(ttft_s, 2),
        "requests_with_equal_tokens": sum(
            a == b for a, b in zip(ours.tokens, found["static"].tokens, strict=True)
        ),
        "requests": len(work),
    }


def _rate(run: Callable[[], Outcome]) -> float | str:
    """Tokens per second, or why a contestant did not finish."""
    try:
        return round(run().tokens_per_s, 1)
    except Exception as error:  # foreign code: its failure is a result
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
