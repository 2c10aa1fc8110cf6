"""Our engine on the same requests, and what it is measured by."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.llm_model import Job
from bench.llm_peers import Outcome
from llm_node.engine.config import EngineConfig
from llm_node.engine.engine import Engine
from llm_node.engine.request import EngineRequest, TokenOut
from ragschema.types import Sampling

#: Prompts come as fast as they are read, and there are enough gaps between tokens that
#: their 99th percentile is not one slow step.
_RUNNING_TOKENS, _ARRIVING, _ARRIVES_EVERY = 192, 16, 11


@dataclass
class Clocked:
    """When each request got each of its tokens."""

    times_s: dict[str, list[float]] = field(default_factory=dict)
    ids: dict[str, list[int]] = field(default_factory=dict)

    def take(self, events: Sequence[object]) -> None:
        now = time.perf_counter()
        for event in events:
            if isinstance(event, TokenOut):
                self.times_s.setdefault(event.request_id, []).append(now)
                self.ids.setdefault(event.request_id, []).append(event.token_id)


def request(name: str, job: Job) -> EngineRequest:
    """Greedy, exactly as many tokens as the job asks for."""
    sampling = replace(Sampling(), max_tokens=job.output, ignore_eos=True)
    return EngineRequest(name, job.prompt, sampling)


def throughput(directory: Path, work: Sequence[Job], config: EngineConfig) -> tuple[Outcome, float]:
    """All requests at the start; the outcome, and the mean TTFT in s."""
    engine = Engine.load(directory, config)
    warm_up(engine, work[0])
    clocked = Clocked()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    for number, job in enumerate(work):
        engine.add(request(str(number), job))
    while engine.has_work:
        clocked.take(engine.step())
    wall_s = time.perf_counter() - started_s
    cpu_s = time.process_time() - started_cpu_s
    engine.check_integrity()
    ttft_s = statistics.fmean(times[0] - started_s for times in clocked.times_s.values())
    tokens = tuple(tuple(clocked.ids[str(n)]) for n in range(len(work)))
    return Outcome(tokens, wall_s, cpu_s), ttft_s


def warm_up(engine: Engine, job: Job) -> None:
    """One short request, so that lazy set-up is not timed; its prefix is another one."""
    engine.add(request("warm", Job(tuple(reversed(job.prompt))[:64], 4)))
    while engine.has_work:
        engine.step()


def ttft_s(engine: Engine, name: str, job: Job) -> float:
    """Seconds to the first token of one request alone."""
    clocked = Clocked()
    started_s = time.perf_counter()
    engine.add(request(name, job))
    while engine.has_work:
        clocked.take(engine.step())
    return clocked.times_s[name][0] - started_s


def prefix_ratio(directory: Path, config: EngineConfig, seed: int, vocabulary: int) -> float:
    """TTFT of 1 024 + 64 tokens cold over the same with the first 1 024 cached; medians."""
    from bench.llm_model import jobs

    engine = Engine.load(directory, config)
    ratios = []
    for turn in range(3):
        shared, first, second = (
            job.prompt
            for job in jobs(3, seed + turn, vocabulary, prompts=(1024, 1024), outputs=(1, 1))
        )
        cold = ttft_s(engine, f"cold{turn}", Job((*shared, *first[:64]), 1))
        cached = ttft_s(engine, f"cached{turn}", Job((*shared, *second[:64]), 1))
        ratios.append(cold / cached)
    return statistics.median(ratios)


def itl_ratio(
    directory: Path, config: EngineConfig, seed: int, vocabulary: int
) -> dict[str, float]:
    """Gaps between tokens of running sequences, quiet and with long prompts arriving."""
    from bench.llm_model import jobs

    running = jobs(
        4, seed, vocabulary, prompts=(128, 128), outputs=(_RUNNING_TOKENS, _RUNNING_TOKENS)
    )
    arriving = jobs(_ARRIVING, seed + 1, vocabulary, prompts=(512, 512), outputs=(2, 2))
    quiet = _gaps(Engine.load(directory, config), running, [])
    busy = _gaps(Engine.load(directory, config), running, arriving)
    p50, p99 = statistics.median(quiet), sorted(busy)[int(0.99 * len(busy))]
    return {
        "itl_p50_ms": round(p50 * 1e3, 2),
        "itl_p99_under_prefill_ms": round(p99 * 1e3, 2),
        "itl_p99_under_prefill_ratio": round(p99 / p50, 2),
    }


def _gaps(engine: Engine, running: Sequence[Job], arriving: Sequence[Job]) -> list[float]:
    clocked, left = Clocked(), list(arriving)
    for number, job in enumerate(running):
        engine.add(request(f"run{number}", job))
    while engine.has_work:
        clocked.take(engine.step())
        started = min((len(t) for t in clocked.times_s.values()), default=0)
        if left and started and started >= _ARRIVES_EVERY * (len(arriving) - len(left) + 1):
            engine.add(request(f"late{len(left)}", left.pop()))
    return [
        b - a
        for name, times in clocked.times_s.items()
        if name.startswith("run")
        for a, b in itertools.pairwise(times[4:])
    ]
