"""The engine on a GPU: tokens per second, TTFT and memory bandwidth used in decode."""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.common import note
from bench.llm_model import ONE_B, Job, jobs, save_model
from bench.llm_ours import Clocked, request
from llm_node.engine.config import EngineConfig
from llm_node.engine.engine import Engine
from llm_node.engine.kernels import kernels_for

_PROMPT, _OUTPUT = 512, 128
_COPY_BYTES = 1 << 31
#: Best first: a benchmark that is stopped has said the most.
_VARIANTS: dict[str, dict[str, bool]] = {
    "compiled": {"cuda_graphs": True, "compile_steps": True},
    "graphs": {"cuda_graphs": True},
    "eager": {},
}


def measure(seed: int) -> dict[str, Any]:
    """A model of 1B shape in bfloat16: decode steps compiled and recorded, recorded, launched."""
    import torch

    copy = copy_bytes_per_s()
    result: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "copy_bytes_per_s": round(copy),
    }
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        save_model(directory, ONE_B, seed, "bfloat16")
        for name, options in _VARIANTS.items():
            started_s = time.perf_counter()
            engine = Engine.load(directory, _config(**options))
            start_s = round(time.perf_counter() - started_s, 1)
            result[name] = {"kernels": _kernels(engine), "start_s": start_s}
            for concurrency in (1, 8, 64):
                result[name][str(concurrency)] = _at(engine, concurrency, seed, copy)
                note(f"{name} {concurrency}: {result[name]}")
            engine.check_integrity()
            del engine
            torch.cuda.empty_cache()
    best = max(result[name]["1"]["decode_bandwidth_fraction"] for name in _VARIANTS)
    return {"decode_bandwidth_fraction": best, **result}


def copy_bytes_per_s() -> float:
    """Bytes read and written per second by a copy within the GPU's memory."""
    import torch

    source = torch.empty(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    for _ in range(10):
        target.copy_(source)
    torch.cuda.synchronize()
    return 20 * _COPY_BYTES / (time.perf_counter() - started_s)


def _config(**options: bool) -> EngineConfig:
    return EngineConfig(
        device="cuda",
        dtype="bfloat16",
        kv_bytes=16 << 30,
        max_tokens_per_request=4096,
        max_running=64,
        step_tokens=2048,
        prefill_chunk=2048,
        **options,
    )


def _kernels(engine: Engine) -> str:
    """Whose attention it is."""
    return kernels_for(engine.model.device, engine.model.layout).attend.__module__


def _at(engine: Engine, concurrency: int, seed: int, copy: float) -> dict[str, float]:
    """The second of two rounds: the first compiles, records and fills caches."""
    vocabulary = ONE_B["vocab_size"]
    assert isinstance(vocabulary, int), "a shape of ours"
    for turn in range(2):
        work = jobs(
            concurrency, seed + 100 * turn, vocabulary, (_PROMPT, _PROMPT), (_OUTPUT, _OUTPUT)
        )
        clocked, started_s, wall_s = _run(engine, work, f"{concurrency}-{turn}")
    ttft_s = statistics.fmean(times[0] - started_s for times in clocked.times_s.values())
    gaps = [b - a for times in clocked.times_s.values() for a, b in pairwise(times[8:])]
    step_s = statistics.median(gaps)
    found = {
        "tokens_per_s": round(concurrency * _OUTPUT / wall_s, 1),
        "ttft_mean_ms": round(ttft_s * 1e3, 2),
        "decode_step_ms": round(step_s * 1e3, 3),
    }
    if concurrency == 1:
        weights = sum(p.numel() * p.element_size() for p in engine.model.module.parameters())
        kv = engine.model.layout.token_bytes * (_PROMPT + _OUTPUT // 2)
        found["decode_bandwidth_fraction"] = round((weights + kv) / step_s / copy, 3)
    return found


def _run(engine: Engine, work: list[Job], name: str) -> tuple[Clocked, float, float]:
    clocked, started_s = Clocked(), time.perf_counter()
    for number, job in enumerate(work):
        engine.add(request(f"{name}-{number}", job))
    while engine.has_work:
        clocked.take(engine.step())
    return clocked, started_s, time.perf_counter() - started_s
