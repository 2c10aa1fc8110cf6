"""Which requests a load has, and when they are planned to arrive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from coordinator.load.prompts import LoadRequest, Part, PartKind, topical_question
from coordinator.load.ragpulse import PulseRequest, read_ragpulse
from ragschema.errors import InvalidInput
from ragschema.lengths import LengthConfig, lengths_of
from ragschema.planner.arrivals import arrivals_for, from_trace
from ragschema.planner.stages import F64
from ragschema.tracefile import trace_column
from ragschema.traffic import ArrivalsConfig
from ragschema.userfile import read_user_text

MAX_REQUESTS: Final = 1_000_000
_MAX_QUESTIONS: Final = 1_000_000


@dataclass(frozen=True)
class LoadPlan:
    """Requests and their times.

    Attributes:
        requests: in the order of their arrival.
        times_s: float64 [requests], ascending, from the start of the load; None: closed loop,
            where a request leaves when an earlier one is answered.
    """

    requests: tuple[LoadRequest, ...]
    times_s: F64 | None


@dataclass(frozen=True)
class Shape:
    """What synthetic requests look like.

    Attributes:
        prompt, output: tokens.
        questions: asked in place of synthetic ones, drawn evenly; empty: none are given.
    """

    prompt: LengthConfig = 64
    output: LengthConfig = 64
    questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pace:
    """How the times of a trace are played.

    Attributes:
        speed: times as fast as recorded.
        rate_per_s: mean rate to scale to, in place of ``speed``.
    """

    speed: float = 1.0
    rate_per_s: float | None = None


def synthetic(shape: Shape, count: int, seed: int) -> tuple[LoadRequest, ...]:
    """Requests with drawn lengths, or with drawn questions of a list.

    Raises:
        InvalidInput, NotFound: of the lengths.
    """
    rng = np.random.default_rng(seed)
    outputs = _drawn(shape.output, "output_tokens", count, rng)
    if shape.questions:
        picks = rng.integers(0, len(shape.questions), count)
        texts = [shape.questions[at] for at in picks]
        return tuple(LoadRequest((), t, n) for t, n in zip(texts, outputs, strict=True))
    prompts = _drawn(shape.prompt, "prompt_tokens", count, rng)
    numbers = rng.integers(0, 2**62, count)
    return tuple(
        LoadRequest((Part(PartKind.QUESTION, int(number), size),), None, out)
        for number, size, out in zip(numbers, prompts, outputs, strict=True)
    )


def mixed(kinds: Sequence[tuple[float, Shape]], count: int, seed: int) -> tuple[LoadRequest, ...]:
    """Requests of several kinds, each drawn by its share.

    Args:
        kinds: shares that add up to 1, and what their requests look like.

    Raises:
        InvalidInput, NotFound: of the lengths.
    """
    shares = np.array([share for share, _ in kinds])
    picks = np.random.default_rng([seed, 1]).choice(len(kinds), count, p=shares / shares.sum())
    drawn = [synthetic(shape, count, seed + at) for at, (_, shape) in enumerate(kinds)]
    return tuple(drawn[kind][at] for at, kind in enumerate(picks))


def paced(
    requests: tuple[LoadRequest, ...], arrivals: ArrivalsConfig, rate_per_s: float, seed: int
) -> LoadPlan:
    """Requests that arrive as a process says, at a mean rate.

    Raises:
        InvalidInput, NotFound: of the process.
    """
    return LoadPlan(requests, arrivals_for(arrivals, rate_per_s, len(requests), seed))


def from_ragpulse(
    path: Path, limit: int | None, pace: Pace, questions: Sequence[str] | None
) -> LoadPlan:
    """The requests of a RAGPulse trace, in its times, lengths and popularity.

    Args:
        limit: how many of the first requests; None: all.
        questions: None: every prompt is sent whole, as the trace's model read it. Else only
            what the user asked is sent, for the endpoint to retrieve: where two requests
            began with the same passage, they ask for the same thing. Of a list, the most
            popular passage's requests ask its first question, and so on round the list; an
            empty list stands for synthetic questions.

    Raises:
        InvalidInput, NotFound: of the trace.
    """
    rows = read_ragpulse(path)[:limit]
    if questions is None:
        requests = tuple(LoadRequest(r.parts, None, max(1, r.output_tokens)) for r in rows)
    else:
        requests = tuple(
            LoadRequest((), _question(r, questions), max(1, r.output_tokens)) for r in rows
        )
    return LoadPlan(requests, _times(np.array([r.at_s for r in rows]), pace))


def from_columns(path: Path, columns: Sequence[str], limit: int | None, pace: Pace) -> LoadPlan:
    """Requests of a trace with columns of seconds, prompt tokens and output tokens.

    Raises:
        InvalidInput, NotFound: of the trace.
    """
    times, prompts, outputs = (trace_column(path, name, "columns") for name in columns)
    order = np.argsort(times, kind="stable")[:limit]
    requests = tuple(
        LoadRequest(
            (Part(PartKind.QUESTION, int(at), max(1, int(prompts[at]))),),
            None,
            max(1, int(outputs[at])),
        )
        for at in order
    )
    return LoadPlan(requests, _times(times[order], pace))


def read_questions(path: Path) -> tuple[str, ...]:
    """Questions of a text file, one a line, or of .jsonl with ``question`` or ``text``.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it has no questions, or a line that is none.
    """
    text = read_user_text(path, "questions", "name a text file with a question a line")
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if path.suffix == ".jsonl":
        found = [_asked(line, f"{path} line {number}") for number, line in lines]
    else:
        found = [line.strip() for _, line in lines]
    if not 0 < len(found) <= _MAX_QUESTIONS:
        raise InvalidInput(
            f"{path} has {len(found)} questions", field="questions", hint="write one a line"
        )
    return tuple(found)


def _asked(line: str, where: str) -> str:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{where} is not JSON", field="questions", hint="write one object a line"
        ) from error
    value = (row.get("question") or row.get("text")) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(
            f"{where} has no question", field="questions", hint='write {"question": "..."}'
        )
    return value.strip()


def _question(row: PulseRequest, questions: Sequence[str]) -> str:
    if questions:
        return questions[(row.question_id if row.rank is None else row.rank) % len(questions)]
    topic = row.question_id if row.topic is None else row.topic
    return topical_question(topic, row.question_id, max(1, row.question_tokens))


def _times(times_s: F64, pace: Pace) -> F64:
    played = from_trace(times_s)
    if pace.rate_per_s is None:
        return from_trace(times_s, pace.speed)
    if not 0 < pace.rate_per_s < np.inf:
        raise InvalidInput(
            f"{pace.rate_per_s} is not above 0", field="rate", hint="give a positive number"
        )
    if not played[-1] > 0:
        raise InvalidInput(
            "all times of the trace are the same", field="rate", hint="leave --rate out"
        )
    return from_trace(times_s, float(played[-1]) * pace.rate_per_s / len(played))


def _drawn(config: LengthConfig, field: str, count: int, rng: np.random.Generator) -> list[int]:
    return [max(1, int(n)) for n in rng.choice(lengths_of(config, field).array, count)]
