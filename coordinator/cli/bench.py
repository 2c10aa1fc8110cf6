"""``ragrig bench``: load on a rig, or on any endpoint that streams as OpenAI's API does."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli import options


class Process(enum.StrEnum):
    """How requests come in an open loop."""

    POISSON = "poisson"
    GAMMA = "gamma"
    BURSTS = "bursts"


class Send(enum.StrEnum):
    """What of a RAGPulse request is sent."""

    AUTO = "auto"
    QUESTION = "question"
    PROMPT = "prompt"


Model = Annotated[
    str | None,
    typer.Option(
        help="Model to ask for, such as ragrig/COLLECTION. Default: the endpoint's first,"
        " a collection where it has one.",
        metavar="NAME",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        help="Open loop: mean arrivals per second; of a trace, the rate to scale it to.",
        metavar="PER_S",
    ),
]
Arrivals = Annotated[
    Process, typer.Option(help="How they come: poisson, gamma (with --cv) or bursts.")
]
Cv = Annotated[
    float | None,
    typer.Option(help="Coefficient of variation of gamma gaps; above 1: clumps.", metavar="X"),
]
BurstSize = Annotated[
    int | None, typer.Option(help="Requests of a burst, all at once.", min=1, max=65_536)
]
Trace = Annotated[
    Path | None,
    typer.Option(
        help="Replay a trace: RAGPulse as it is published, or .csv or .jsonl[.gz] with --columns.",
        metavar="FILE",
    ),
]
Columns = Annotated[
    str,
    typer.Option(
        help="Columns of a trace that is not RAGPulse's: seconds, prompt and output tokens.",
        metavar="TIME,PROMPT,OUTPUT",
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(help="Play the trace so many times as fast.", metavar="X"),
]
What = Annotated[
    Send,
    typer.Option(
        "--send",
        help="Of a RAGPulse request: the user's question, for the rig to retrieve for, or the"
        " whole prompt. auto: the question to a ragrig/ model, the prompt to others.",
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(help="Closed loop: requests kept under way.", min=1, max=65_536),
]
Requests = Annotated[
    int | None,
    typer.Option(
        help="Requests. Default: 100, a whole trace, or as many as --duration takes.",
        min=1,
        max=1_000_000,
    ),
]
Duration = Annotated[
    float | None,
    typer.Option(help="Plan no request after so long.", metavar="SECONDS"),
]
Questions = Annotated[
    Path | None,
    typer.Option(
        help="Questions to ask: a text file with one a line, or .jsonl with question or text."
        " A RAGPulse trace asks the first for its most popular passage, and so on.",
        metavar="FILE",
    ),
]
Schema = Annotated[
    Path | None,
    typer.Option(
        help="Take arrivals, lengths, classes, rate and objectives from a RAGSchema; options that"
        " are given as well go first.",
        metavar="SCHEMA.yaml",
    ),
]
PromptTokens = Annotated[
    str | None,
    typer.Option(help="Tokens of a prompt: 64, or p50=64,p99=500. Default: 64.", metavar="N"),
]
OutputTokens = Annotated[
    str | None, typer.Option(help="Tokens of an answer at most, likewise.", metavar="N")
]
MaxInFlight = Annotated[
    int,
    typer.Option(
        help="Open loop: requests under way at once; more wait, and count from their planned time.",
        min=1,
        max=65_536,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(help="An answer takes at most so long; later is an error.", metavar="SECONDS"),
]
Warmup = Annotated[
    int, typer.Option(help="Requests before the load, one by one, not counted.", min=0, max=10_000)
]
Slo = Annotated[
    str | None,
    typer.Option(
        help="What a good answer keeps, in milliseconds, for the goodput.",
        metavar="ttft=500,tpot=50,e2e=9000",
    ),
]
Body = Annotated[
    str | None,
    typer.Option(
        help="Keys laid over every request's body.", metavar='\'{"k": 8, "ignore_eos": true}\''
    ),
]
Seed = Annotated[int, typer.Option(help="Of arrivals, lengths and questions.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Out = Annotated[Path | None, typer.Option(help="Write the report as JSON.", metavar="FILE.json")]
Raw = Annotated[
    Path | None,
    typer.Option(help="Write one JSON line per request, with its times.", metavar="FILE.jsonl"),
]
Plot = Annotated[
    Path | None, typer.Option(help="Draw latencies and rates: .png or .svg.", metavar="FILE")
]


def build() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(
        help="Measure a rig under load.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_group)
    app.command()(load)
    return app


def _group() -> None:
    """Measure a rig under load."""


def load(
    url: options.Url = None,
    model: Model = None,
    rate: Rate = None,
    arrivals: Arrivals = Process.POISSON,
    cv: Cv = None,
    burst_size: BurstSize = None,
    schema: Schema = None,
    trace: Trace = None,
    columns: Columns = "timestamp,input_length,output_length",
    speed: Speed = None,
    send: What = Send.AUTO,
    concurrency: Concurrency = None,
    requests: Requests = None,
    duration: Duration = None,
    questions: Questions = None,
    prompt_tokens: PromptTokens = None,
    output_tokens: OutputTokens = None,
    max_in_flight: MaxInFlight = 256,
    timeout: Timeout = 120.0,
    warmup: Warmup = 1,
    slo: Slo = None,
    body: Body = None,
    seed: Seed = 0,
    json_: Json = False,
    out: Out = None,
    raw: Raw = None,
    plot: Plot = None,
    config: options.Config = None,
    data_dir: options.DataDir = None,
    api_key_file: options.ApiKeyFile = None,
) -> None:
    """Send load to /v1/chat/completions and report latencies, goodput, errors and coverage.

    Open loop with --rate, --schema or --trace: requests leave at their planned times, and
    latencies count from there. Closed loop with --concurrency: a request leaves when another is
    answered.
    """
    from coordinator.cli.benching import run_bench_load
    from coordinator.cli.load_choices import LoadChoices
    from coordinator.cli.target import find_target

    choices = LoadChoices(
        model, rate, arrivals, cv, burst_size, schema, trace, columns, speed, send, concurrency,
        requests, duration, questions, prompt_tokens, output_tokens, max_in_flight, timeout, warmup,
        slo, body, seed, json_, out, raw, plot,
    )  # fmt: skip
    target = find_target(url, config, data_dir, api_key_file)
    if not run_bench_load(target, choices):
        raise typer.Exit(130)
