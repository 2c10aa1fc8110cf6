"""What was typed after ``ragrig bench load``, made into a plan of load."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.cli.bench import Process, Send
from coordinator.load.ragpulse import is_ragpulse
from coordinator.load.report import Objectives
from coordinator.load.workload import (
    MAX_REQUESTS,
    LoadPlan,
    Pace,
    Shape,
    from_columns,
    from_ragpulse,
    mixed,
    paced,
    read_questions,
)
from ragschema.errors import InvalidInput
from ragschema.lengths import LengthConfig, PercentilesConfig
from ragschema.traffic import ArrivalsConfig, ClassConfig, check_arrivals
from ragschema.userfile import nearest
from ragschema.workload import RagSchema, load_schema

RAGRIG_MODEL = "ragrig/"
_DEFAULT_REQUESTS = 100
_TOKENS = 64
_PERCENTILES = ("min", "p10", "p50", "p90", "p99", "max")
_LIMITS = ("ttft", "tpot", "e2e")


@dataclass(frozen=True)
class LoadChoices:
    """Options of one call, as they were typed."""

    model: str | None
    rate_per_s: float | None
    arrivals: Process
    cv: float | None
    burst_size: int | None
    schema: Path | None
    trace: Path | None
    columns: str
    speed: float | None
    send: Send
    concurrency: int | None
    requests: int | None
    duration_s: float | None
    questions: Path | None
    prompt_tokens: str | None
    output_tokens: str | None
    max_in_flight: int
    timeout_s: float
    warmup: int
    slo: str | None
    body: str | None
    seed: int
    json: bool
    out: Path | None
    raw: Path | None
    plot: Path | None


def check_choices(choices: LoadChoices) -> None:
    """Raises InvalidInput where options contradict each other, or a number is not above 0."""
    closed = choices.concurrency is not None
    opened = any(x is not None for x in (choices.rate_per_s, choices.trace, choices.schema))
    if not closed and not opened:
        raise InvalidInput(
            "a load needs --rate, --schema, --trace or --concurrency",
            field="rate",
            hint="ragrig bench load --rate 2 --duration 30",
        )
    clashes = (
        (closed and choices.rate_per_s is not None, "concurrency", "rate"),
        (closed and choices.speed is not None, "concurrency", "speed"),
        (closed and choices.arrivals is not Process.POISSON, "concurrency", "arrivals"),
        (choices.schema is not None and choices.trace is not None, "schema", "trace"),
        (choices.schema is not None and choices.arrivals is not Process.POISSON,
         "schema", "arrivals"),
        (choices.rate_per_s is not None and choices.speed is not None, "rate", "speed"),
        (choices.trace is not None and choices.arrivals is not Process.POISSON,
         "trace", "arrivals"),
    )  # fmt: skip
    for clash, one, other in clashes:
        if clash:
            raise InvalidInput(
                f"--{one} and --{other} exclude each other", field=other, hint="give one of them"
            )
    if choices.speed is not None and choices.trace is None:
        raise InvalidInput("--speed is of a trace", field="speed", hint="give --trace too")
    numbers = {
        "rate": choices.rate_per_s,
        "speed": choices.speed,
        "duration": choices.duration_s,
        "timeout": choices.timeout_s,
    }
    for name, value in numbers.items():
        if value is not None and not 0 < value < math.inf:
            raise InvalidInput(
                f"--{name} {value:g} is not above 0", field=name, hint="give a positive number"
            )


def plan_of(choices: LoadChoices, model: str) -> LoadPlan:
    """The requests and their times.

    Raises:
        InvalidInput, NotFound: naming the option.
    """
    questions = read_questions(choices.questions) if choices.questions is not None else ()
    if choices.trace is not None:
        plan = _traced(choices, model, questions)
        return LoadPlan(plan.requests, None) if choices.concurrency is not None else plan
    schema = load_schema(choices.schema) if choices.schema is not None else None
    rate_per_s = None if choices.concurrency is not None else _rate(choices, schema)
    kinds = _kinds(choices, schema, model, questions)
    requests = mixed(kinds, _count(choices, rate_per_s), choices.seed)
    if rate_per_s is None:
        return LoadPlan(requests, None)
    process = ArrivalsConfig(choices.arrivals.value, cv=choices.cv, size=choices.burst_size)
    if schema is not None and process == ArrivalsConfig():
        process = schema.arrivals
    check_arrivals(process, "the options")
    return paced(requests, process, rate_per_s, choices.seed)


def _rate(choices: LoadChoices, schema: RagSchema | None) -> float:
    if choices.rate_per_s is not None:
        return choices.rate_per_s
    wanted = schema.objectives.qps if schema is not None else None
    if wanted is None:
        raise InvalidInput(
            f"{choices.schema} has no objectives.qps", field="rate", hint="give --rate"
        )
    return wanted


def _kinds(
    choices: LoadChoices, schema: RagSchema | None, model: str, questions: tuple[str, ...]
) -> list[tuple[float, Shape]]:
    """Shapes by share. A rig is sent questions and finds the rest of a prompt itself."""
    prompt, output = (
        None if text is None else parse_lengths(text, option)
        for text, option in (
            (choices.prompt_tokens, "prompt_tokens"),
            (choices.output_tokens, "output_tokens"),
        )
    )
    if schema is None:
        return [(1.0, Shape(prompt or _TOKENS, output or _TOKENS, questions))]
    whole = not model.startswith(RAGRIG_MODEL)
    read = schema.lengths.prompt if whole else schema.lengths.question
    kinds = schema.classes or (ClassConfig("all", 1.0),)
    return [
        (
            kind.share,
            Shape(
                prompt or (kind.lengths.prompt if whole else None) or read,
                output or kind.lengths.output or schema.lengths.output,
                questions,
            ),
        )
        for kind in kinds
    ]


def _traced(choices: LoadChoices, model: str, questions: tuple[str, ...]) -> LoadPlan:
    assert choices.trace is not None
    pace = Pace(choices.speed or 1.0, choices.rate_per_s)
    limit = choices.requests
    if not is_ragpulse(choices.trace):
        names = choices.columns.split(",")
        if len(names) != 3 or choices.questions is not None:
            raise InvalidInput(
                "a trace that is not RAGPulse's needs three --columns, and takes no --questions",
                field="columns",
                hint="--columns timestamp,input_length,output_length",
            )
        return from_columns(choices.trace, names, limit, pace)
    whole = choices.send is Send.PROMPT or (
        choices.send is Send.AUTO and not model.startswith(RAGRIG_MODEL) and not questions
    )
    return from_ragpulse(choices.trace, limit, pace, None if whole else questions)


def _count(choices: LoadChoices, rate_per_s: float | None) -> int:
    """Requests to make; of a duration so many that hardly ever too few arrive in it."""
    if choices.requests is not None:
        return choices.requests
    if choices.duration_s is None:
        return _DEFAULT_REQUESTS
    expected = choices.duration_s * (rate_per_s or 1.0)
    spread = max(1.0, choices.cv or 1.0) * math.sqrt(expected)
    # A schema's arrivals may come in clumps or bursts of any size.
    spread *= 4.0 if choices.schema is not None else 1.0
    return int(min(MAX_REQUESTS, expected + 8 * spread + 16 + (choices.burst_size or 0)))


def parse_lengths(text: str, field: str) -> LengthConfig:
    """``64``, or percentiles such as ``p50=64,p99=500``.

    Raises:
        InvalidInput: neither.
    """
    option = field.replace("_", "-")
    if "=" not in text:
        return _positive(text, option)
    given = _pairs(text, _PERCENTILES, option)
    values: Mapping[str, int] = {name: _positive(value, option) for name, value in given.items()}
    if not {"p50", "p99"} <= values.keys():
        raise InvalidInput(
            f"--{option} {text!r} lacks p50 or p99", field=field, hint="p50=64,p99=500"
        )
    return PercentilesConfig(**values)


def objectives_of(choices: LoadChoices) -> Objectives:
    """What --slo says, else the strictest percentiles of the schema's objectives.

    Raises:
        RagrigError: of the option, or the schema.
    """
    if choices.slo is not None or choices.schema is None:
        return parse_objectives(choices.slo)
    wanted = load_schema(choices.schema).objectives
    limits = (
        wanted.ttft_p99_s or wanted.ttft_p50_s or wanted.ttft_s,
        wanted.tpot_p99_s or wanted.tpot_p50_s or wanted.tpot_s,
        wanted.e2e_p99_s or wanted.e2e_p50_s,
    )
    return Objectives(*(None if limit is None else float(limit) * 1e3 for limit in limits))


def parse_objectives(text: str | None) -> Objectives:
    """``ttft=500,tpot=50``: milliseconds.

    Raises:
        InvalidInput: not that.
    """
    if text is None:
        return Objectives()
    given = _pairs(text, _LIMITS, "slo")
    try:
        limits = {f"{name}_ms": float(value) for name, value in given.items()}
    except ValueError as error:
        raise InvalidInput(f"--slo {text!r}: {error}", field="slo", hint="ttft=500") from error
    if not all(0 < limit < math.inf for limit in limits.values()):
        raise InvalidInput(f"--slo {text!r}: not above 0", field="slo", hint="ttft=500")
    return Objectives(**limits)


def parse_extra(text: str | None) -> tuple[tuple[str, object], ...]:
    """Keys of a JSON object.

    Raises:
        InvalidInput: not one.
    """
    if text is None:
        return ()
    try:
        extra: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"--body is not JSON: {error}", field="body") from error
    if not isinstance(extra, dict):
        raise InvalidInput("--body is no JSON object", field="body", hint="""--body '{"k": 8}'""")
    return tuple(extra.items())


def _pairs(text: str, known: tuple[str, ...], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, _, value = pair.strip().partition("=")
        if name not in known or name in found:
            raise InvalidInput(
                f"--{option} has {'a second' if name in found else 'an unknown'} {name!r}",
                field=option,
                hint=nearest(name, known),
            )
        found[name] = value
    return found


def _positive(text: str, option: str) -> int:
    if not text.strip().isdecimal() or not 0 < int(text) <= 1_000_000:
        raise InvalidInput(
            f"--{option}: {text!r} is no number of tokens", field=option, hint="1 to 1000000"
        )
    return int(text)
