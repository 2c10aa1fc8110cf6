"""RAGO's table 4 and headline ratios (arXiv 2503.14649), computed with one calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ragschema.errors import InternalError
from ragschema.hardware.calibration import find_calibration
from ragschema.hardware.devices import Accelerator, Host, find_device
from ragschema.lengths import LengthsConfig
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.frontier import frontier_of
from ragschema.planner.play import Candidate, play
from ragschema.planner.problem import Placement, Problem, Sharing
from ragschema.planner.reproduce.figure import Figure
from ragschema.planner.schedule import Frontier, Schedule
from ragschema.planner.search import search
from ragschema.planner.stages import StageKind, StageTable
from ragschema.pool import Pool, tied_pool
from ragschema.workload import (
    DatabaseConfig,
    EncoderConfig,
    GeneratorConfig,
    RagSchema,
    RerankerConfig,
    RetrievalConfig,
    RewriterConfig,
)

_APART: Placement = ((0,), (1,), (2,))
_SHARED: Placement = ((0, 1, 2),)


@dataclass(frozen=True)
class _Row:
    name: str
    candidate: Candidate
    ttft_s: float
    qps_per_chip: float


_TABLE_4 = (
    _Row("RAGO, max QPS/chip", Candidate(_APART, (64, 0, 16), (2, 2, 128), 16, 1024), 2.47, 1.08),
    _Row("RAGO, min TTFT", Candidate(_SHARED, (64,), (1, 1, 1), 64, 128), 0.03, 0.22),
    _Row("baseline, max QPS/chip", Candidate(_SHARED, (64,), (2, 2, 128), 64, 256), 1.54, 0.65),
    _Row("baseline, min TTFT", Candidate(_SHARED, (64,), (1, 1, 1), 64, 128), 0.03, 0.22),
)


def rago_pool() -> Pool:
    """64 to 128 XPU-C with the paper's hosts."""
    chip, host = find_device("xpu-c"), find_device("rago-host")
    assert isinstance(chip, Accelerator), "a device of ours"
    assert isinstance(host, Host), "a device of ours"
    calibration = find_calibration("rago")
    return tied_pool(calibration.over(chip), calibration.over(host), 64, 128)


def case1(model: str, queries: int = 1) -> RagSchema:
    """Retrieval from 64e9 vectors in front of a model."""
    return RagSchema(
        1,
        f"case1-{model}",
        GeneratorConfig(model),
        database=DatabaseConfig(vectors=64e9),
        retrieval=RetrievalConfig(queries=queries),
    )


def case2(model: str, context: int) -> RagSchema:
    """A context of the request's own, encoded and searched exactly."""
    return RagSchema(
        1,
        f"case2-{model}",
        GeneratorConfig(model),
        database=DatabaseConfig(bytes_per_vector=1536.0, index="exact"),
        encoder=EncoderConfig(120e6, context),
    )


def case4(model: str) -> RagSchema:
    """A rewriter before the search and a reranker behind it."""
    return replace(
        case1(model),
        name=f"case4-{model}",
        rewriter=RewriterConfig("llama-3-8b"),
        reranker=RerankerConfig(120e6),
    )


def table_4() -> list[Figure]:
    """All eight figures, each on the paper's own schedule."""
    problem = problem_of(case2("llama-3-70b", 1_000_000), rago_pool())
    figures = []
    for row in _TABLE_4:
        schedule = play(problem, row.candidate)
        if schedule is None:
            raise InternalError(f"the schedule of {row.name!r} is not possible in our model")
        figures.append(Figure(f"{row.name}: TTFT s", row.ttft_s, schedule.ttft_s, 0.005))
        figures.append(
            Figure(f"{row.name}: QPS/chip", row.qps_per_chip, schedule.qps_per_chip, 0.005)
        )
    return figures


def headlines() -> list[Figure]:
    """The ratios of the paper's abstract and sections 5 and 7."""
    pool = rago_pool()
    alone = RagSchema(1, "llm-only", GeneratorConfig("llama-3-70b"), LengthsConfig(32, 32, 256))
    # Without a database nothing asks for 16 hosts, so the model may run on few chips.
    llm_only = best_rate(search(problem_of(alone, replace(pool, min_chips=1))))
    rag_8b = search(problem_of(case1("llama-3-8b"), pool))
    rewritten = search(problem_of(replace(case4("llama-3-8b"), reranker=None), pool))
    return [
        Figure(
            "RAG 8B over LLM-only 70B, QPS/chip",
            1.5,
            best_rate(rag_8b).qps_per_chip / llm_only.qps_per_chip,
            0.05,
        ),
        Figure("case 2, gain over the baseline", 1.7, _gain(case2("llama-3-70b", 1_000_000)), 0.05),
        Figure("context of 10M tokens, gain", 1.94, _gain(case2("llama-3-70b", 10_000_000)), 0.005),
        Figure(
            "rewriter, lowest TTFT with over without (8B)",
            2.4,
            rewritten.points[0].ttft_s / rag_8b.points[0].ttft_s,
            0.05,
        ),
    ]


def query_scaling() -> dict[str, list[float]]:
    """Best QPS per chip of case 1 for 1, 2, 4 and 8 queries per retrieval."""
    pool = rago_pool()
    return {
        model: [
            best_rate(search(problem_of(case1(model, queries), pool))).qps_per_chip
            for queries in (1, 2, 4, 8)
        ]
        for model in ("llama-3-8b", "llama-3-70b")
    }


def case4_gains() -> dict[str, float]:
    """Best QPS per chip over the baseline's, with a rewriter and a reranker."""
    return {model: _gain(case4(model)) for model in ("llama-3-8b", "llama-3-70b")}


def baseline(schema: RagSchema, pool: Pool) -> Frontier:
    """The tuned extension of an LLM system: everything before decode shares its chips,
    as many as decode has."""
    problem = problem_of(schema, pool, SearchSpace(sharing=Sharing.ALL))
    found: list[Schedule] = []
    for count in _common_counts(problem):
        stages = tuple(
            stage if stage.kind is StageKind.SERVER else _only(stage, count)
            for stage in problem.stages
        )
        found += search(replace(problem, stages=stages)).points
    return frontier_of(found)


def best_rate(frontier: Frontier) -> Schedule:
    """The schedule with the most QPS per chip."""
    return frontier.points[-1]


def _gain(schema: RagSchema) -> float:
    pool = rago_pool()
    ours = best_rate(search(problem_of(schema, pool)))
    return ours.qps_per_chip / best_rate(baseline(schema, pool)).qps_per_chip


def _common_counts(problem: Problem) -> list[int]:
    on_chips = [set(s.counts) for s in problem.stages if s.kind is not StageKind.SERVER]
    return sorted(set.intersection(*on_chips))


def _only(stage: StageTable, count: int) -> StageTable:
    row = stage.counts.index(count)
    return replace(stage, counts=(count,), latency_s=stage.latency_s[row : row + 1])
