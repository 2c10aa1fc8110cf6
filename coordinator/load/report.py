"""What a load measured: latencies, rates, goodput, errors, and how well the plan was kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from coordinator.load.client import Reply
from coordinator.load.drive import LoadRun, Outcome
from coordinator.load.workload import LoadPlan

#: A request that leaves no later than this after its planned arrival is on time.
ON_TIME_MS: Final = 20.0
#: Of the answers of a closed loop one in so many came while it was filling.
_FILLING: Final = 5

DEFINITIONS: Final[Mapping[str, str]] = {
    "ttft_ms": "from the planned arrival to the first piece of text",
    "ttft_from_sent_ms": "from when the request left to the first piece of text",
    "e2e_ms": "from the planned arrival to the last event",
    "e2e_from_sent_ms": "from when the request left to the last event",
    "tpot_ms": "of an answer: from its first piece to its last, over its output tokens less one",
    "itl_ms": "between two pieces of an answer that came one after the other, over all answers",
    "lateness_ms": "from the planned arrival to when the request left",
    "requests_per_s": "answers, over the time until the last request ended",
    "steady_per_s": "of a closed loop: answers per second from when a fifth were there until the"
    " last request left, so without filling and emptying",
    "goodput_per_s": "answers within the objectives, over the time until the last request ended",
    "goodput_share": "answers within the objectives, of all planned requests",
    "sent_share": "requests that were sent, of all planned",
    "on_time_share": f"requests that left within {ON_TIME_MS:g} ms, of all planned",
    "completed_share": "answers that were whole, of all planned requests",
}


@dataclass(frozen=True)
class Summary:
    """One quantity over many requests; percentiles by straight lines between ranks."""

    count: int
    mean: float
    min: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class Objectives:
    """An answer is good when it keeps all of these, counted from its planned arrival.

    Attributes:
        ttft_ms, tpot_ms, e2e_ms: at most; None: any.
    """

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None

    @property
    def given(self) -> bool:
        return any(limit is not None for limit in (self.ttft_ms, self.tpot_ms, self.e2e_ms))


@dataclass(frozen=True)
class ErrorCount:
    """Requests that failed in one way.

    Attributes:
        example: what was said of the first of them.
    """

    count: int
    example: str


@dataclass(frozen=True)
class Coverage:
    """How much of the plan came about; shares of all planned requests."""

    planned: int
    sent: int
    completed: int
    sent_share: float
    on_time_share: float
    completed_share: float


@dataclass(frozen=True)
class Tokens:
    """Tokens of the answers.

    Attributes:
        output_counted: how many answers' output the endpoint counted; pieces stand for tokens
            in the others.
        prompt_planned, prompt_counted: of answers whose prompt the endpoint counted: as the
            load meant it to be, and as the endpoint counted it.
    """

    output: int
    output_counted: int
    prompt_planned: int
    prompt_counted: int


@dataclass(frozen=True)
class LoadReport:
    """All figures of a load. Latencies are in milliseconds and of answers that were whole.

    Attributes:
        metrics: by their name in DEFINITIONS; a name is missing where nothing was measured.
        stages_ms: by the endpoint's own name of a stage.
        offered_per_s: planned requests over the time of the last planned arrival; None in a
            closed loop.
        degraded: answers for which only a part of the collection was searched.
        client_cpu_share: of one processor that sending and reading took; near 1 the figures
            are of the load generator and no longer of the endpoint.
        without_text: whole answers whose tokens have no text; they have no TTFT.
        steady_per_s: of a closed loop; None of an open one, or where too few were answered.
    """

    wall_s: float
    stopped: bool
    coverage: Coverage
    metrics: Mapping[str, Summary]
    stages_ms: Mapping[str, Summary]
    offered_per_s: float | None
    requests_per_s: float
    output_tokens_per_s: float
    goodput_per_s: float | None
    goodput_share: float | None
    errors: Mapping[str, ErrorCount]
    tokens: Tokens
    degraded: int
    client_cpu_share: float
    without_text: int = 0
    steady_per_s: float | None = None


def summary(values: Iterable[float]) -> Summary | None:
    """None of nothing."""
    array = np.fromiter(values, np.float64)
    if not len(array):
        return None
    p50, p90, p99 = np.quantile(array, (0.5, 0.9, 0.99)).tolist()
    return Summary(
        len(array), float(array.mean()), float(array.min()), p50, p90, p99, float(array.max())
    )


def tpot_ms(reply: Reply) -> float | None:
    """Milliseconds per output token after the first; None of a single one."""
    tokens = reply.output_tokens or len(reply.pieces_s)
    if tokens < 2 or not reply.pieces_s:
        return None
    return (reply.pieces_s[-1] - reply.pieces_s[0]) * 1e3 / (tokens - 1)


def ttft_ms(run: LoadRun, outcome: Outcome) -> float | None:
    """Milliseconds from the planned arrival to the first text; None without any."""
    if outcome.reply is None or not outcome.reply.pieces_s:
        return None
    return (outcome.reply.pieces_s[0] - run.started_s - outcome.planned_s) * 1e3


def e2e_ms(run: LoadRun, outcome: Outcome) -> float | None:
    """Milliseconds from the planned arrival to the end; None of a request never sent."""
    if outcome.reply is None:
        return None
    return (outcome.reply.end_s - run.started_s - outcome.planned_s) * 1e3


def make_report(run: LoadRun, plan: LoadPlan, objectives: Objectives) -> LoadReport:
    """Sums up a run."""
    whole = [o for o in run.outcomes if o.failure is None]
    replies = [o.reply for o in whole if o.reply is not None]
    good = sum(_keeps(run, o, objectives) for o in whole)
    output = sum(r.output_tokens or len(r.pieces_s) for r in replies)
    last_s = float(plan.times_s[run.planned - 1]) if plan.times_s is not None else 0.0
    return LoadReport(
        wall_s=run.wall_s,
        stopped=run.stopped,
        coverage=_coverage(run, len(whole)),
        metrics=_metrics(run, whole, replies),
        stages_ms=_stages(replies),
        offered_per_s=run.planned / last_s if last_s > 0 else None,
        requests_per_s=len(whole) / run.wall_s,
        output_tokens_per_s=output / run.wall_s,
        goodput_per_s=good / run.wall_s if objectives.given else None,
        goodput_share=good / run.planned if objectives.given else None,
        errors=_errors(run.outcomes),
        tokens=_tokens(plan, whole, output),
        without_text=sum(not r.pieces_s for r in replies),
        degraded=sum(r.coverage is not None and r.coverage < 1 for r in replies),
        client_cpu_share=run.cpu_s / run.wall_s,
        steady_per_s=_steady_per_s(run, whole) if plan.times_s is None else None,
    )


def _steady_per_s(run: LoadRun, whole: Sequence[Outcome]) -> float | None:
    """None where too few were answered to tell."""
    ended_s = sorted(o.reply.end_s - run.started_s for o in whole if o.reply is not None)
    last_sent_s = max((o.planned_s for o in run.outcomes), default=0.0)
    between = [s for s in ended_s[len(ended_s) // _FILLING :] if s <= last_sent_s]
    if len(between) < 2:
        return None
    return (len(between) - 1) / (between[-1] - between[0])


def _keeps(run: LoadRun, outcome: Outcome, objectives: Objectives) -> bool:
    assert outcome.reply is not None, "of a whole answer"
    if objectives.ttft_ms is not None and not outcome.reply.pieces_s:
        return False  # nobody knows when its first token came
    pairs = (
        (ttft_ms(run, outcome), objectives.ttft_ms),
        (tpot_ms(outcome.reply), objectives.tpot_ms),
        (e2e_ms(run, outcome), objectives.e2e_ms),
    )
    return all(value is None or limit is None or value <= limit for value, limit in pairs)


def _lateness_ms(run: LoadRun, outcome: Outcome) -> float:
    assert outcome.reply is not None, "of a request that was sent"
    return max(0.0, (outcome.reply.sent_s - run.started_s - outcome.planned_s) * 1e3)


def _coverage(run: LoadRun, completed: int) -> Coverage:
    sent = [o for o in run.outcomes if o.reply is not None]
    on_time = sum(_lateness_ms(run, o) <= ON_TIME_MS for o in sent)
    planned = max(1, run.planned)
    return Coverage(
        run.planned,
        len(sent),
        completed,
        len(sent) / planned,
        on_time / planned,
        completed / planned,
    )


def _metrics(
    run: LoadRun, whole: Sequence[Outcome], replies: Sequence[Reply]
) -> dict[str, Summary]:
    found = {
        "ttft_ms": summary(v for o in whole if (v := ttft_ms(run, o)) is not None),
        "ttft_from_sent_ms": summary(
            (r.pieces_s[0] - r.sent_s) * 1e3 for r in replies if r.pieces_s
        ),
        "tpot_ms": summary(v for r in replies if (v := tpot_ms(r)) is not None),
        "itl_ms": summary(
            gap * 1e3 for r in replies for gap in np.diff(np.array(r.pieces_s)).tolist()
        ),
        "e2e_ms": summary(v for o in whole if (v := e2e_ms(run, o)) is not None),
        "e2e_from_sent_ms": summary((r.end_s - r.sent_s) * 1e3 for r in replies),
        "lateness_ms": summary(_lateness_ms(run, o) for o in run.outcomes if o.reply is not None),
    }
    return {name: value for name, value in found.items() if value is not None}


def _stages(replies: Sequence[Reply]) -> dict[str, Summary]:
    names = dict.fromkeys(name for r in replies for name in r.stages_ms)
    found = {n: summary(r.stages_ms[n] for r in replies if n in r.stages_ms) for n in names}
    return {name: value for name, value in found.items() if value is not None}


def _errors(outcomes: Sequence[Outcome]) -> dict[str, ErrorCount]:
    failures = [o.failure for o in outcomes if o.failure is not None]
    first = {f.kind: f.detail for f in reversed(failures)}
    counts = Counter(f.kind for f in failures)
    return {kind: ErrorCount(n, first[kind]) for kind, n in counts.most_common()}


def _tokens(plan: LoadPlan, whole: Sequence[Outcome], output: int) -> Tokens:
    requests = plan.requests
    counted = [
        (requests[o.index % len(requests)].prompt_tokens, o.reply.prompt_tokens)
        for o in whole
        if o.reply is not None and o.reply.prompt_tokens is not None
    ]
    return Tokens(
        output,
        sum(o.reply is not None and o.reply.output_tokens is not None for o in whole),
        sum(planned for planned, _ in counted),
        sum(actual for _, actual in counted),
    )
