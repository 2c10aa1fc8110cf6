"""RAGSchema: a retrieval-augmented workload in one YAML file.

The attributes are those of RAGO's table 1 (arXiv 2503.14649) and the lengths, precisions
and objectives that a plan needs besides. ``examples/schemas/`` has the paper's four cases.
The YAML is untrusted text: pydantic checks it once, frozen dataclasses come out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ragschema.errors import InvalidInput
from ragschema.plainyaml import load_plain_yaml
from ragschema.userfile import nearest, read_user_text

_STRICT = ConfigDict(extra="forbid", strict=True)

Tokens = Annotated[int, Field(ge=1, le=100_000_000)]
Count = Annotated[int, Field(ge=1, le=4096)]
Amount = Annotated[float, Field(gt=0, le=1e15)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(gt=0, le=1)]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
Width = Literal["int4", "int8", "fp8", "bf16", "fp16", "fp32"]


def bytes_of(width: Width) -> float:
    """Bytes per number."""
    return {"int4": 0.5, "int8": 1.0, "fp8": 1.0, "bf16": 2.0, "fp16": 2.0, "fp32": 4.0}[width]


@dataclass(frozen=True)
class LengthsConfig:
    """Tokens of a request.

    Attributes:
        question: what the user asks.
        prompt: what the model reads, question and passages together.
        output: what it writes.
    """

    __pydantic_config__ = _STRICT
    question: Tokens = 32
    prompt: Tokens = 512
    output: Tokens = 256


@dataclass(frozen=True)
class GeneratorConfig:
    """The model that answers."""

    __pydantic_config__ = _STRICT
    model: ModelName
    weights: Width = "int8"
    kv: Width = "bf16"


@dataclass(frozen=True)
class RewriterConfig:
    """A model that rewrites the question before retrieval."""

    __pydantic_config__ = _STRICT
    model: ModelName
    weights: Width = "int8"
    kv: Width = "bf16"
    input: Tokens = 32
    output: Tokens = 32


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder that embeds a long context of the request's own before retrieval.

    Attributes:
        parameters: count.
        context: tokens of the context that are encoded per request.
        chunk: tokens per encoded piece.
    """

    __pydantic_config__ = _STRICT
    parameters: Amount
    context: Tokens
    chunk: Tokens = 128
    weights: Width = "int8"


@dataclass(frozen=True)
class RerankerConfig:
    """An encoder that orders retrieved passages."""

    __pydantic_config__ = _STRICT
    parameters: Amount
    passages: Count = 16
    passage: Tokens = 100
    weights: Width = "int8"


@dataclass(frozen=True)
class DatabaseConfig:
    """What is searched.

    Attributes:
        vectors: in all; None: the pieces of the encoder's context.
        bytes_per_vector: of a PQ code, or of the whole vector where exact.
        index: ``tree`` scans ``scan_share`` of the leaves of a tree; ``exact`` compares all.
        fanout: children per node of the tree.
    """

    __pydantic_config__ = _STRICT
    vectors: Amount | None = None
    bytes_per_vector: Amount = 96.0
    index: Literal["tree", "exact"] = "tree"
    scan_share: Share = 0.001
    fanout: Annotated[int, Field(ge=2, le=1_000_000)] = 4096


@dataclass(frozen=True)
class RetrievalConfig:
    """How often the database is asked.

    Attributes:
        per_sequence: retrievals per answer; more than 1 happen during decode.
        queries: query vectors per retrieval.
    """

    __pydantic_config__ = _STRICT
    per_sequence: Count = 1
    queries: Count = 1


@dataclass(frozen=True)
class ObjectivesConfig:
    """Service objectives; None: none.

    Attributes:
        ttft_s: of a burst at an empty system, on average.
        ttft_p99_s: under Poisson arrivals at ``load`` of the plan's rate, by simulation.
        qps: to be served.
    """

    __pydantic_config__ = _STRICT
    ttft_s: Seconds | None = None
    ttft_p99_s: Seconds | None = None
    load: Share = 0.7
    tpot_s: Seconds | None = None
    qps: Amount | None = None


@dataclass(frozen=True)
class RagSchema:
    """A whole workload; a stage that is None is not there."""

    __pydantic_config__ = _STRICT
    version: Literal[1]
    name: ModelName
    generator: GeneratorConfig
    lengths: LengthsConfig = field(default_factory=LengthsConfig)
    database: DatabaseConfig | None = None
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    encoder: EncoderConfig | None = None
    rewriter: RewriterConfig | None = None
    reranker: RerankerConfig | None = None
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)


def load_schema(path: Path) -> RagSchema:
    """Reads and checks a RAGSchema file.

    Raises:
        NotFound: there is no such file.
        InvalidInput: naming the path, the value, the allowed range and the nearest key.
    """
    text = read_user_text(path, "schema", "see examples/schemas/ for files to start from")
    return parse_schema(text, str(path))


def parse_schema(text: str, source: str) -> RagSchema:
    """Checks a schema's YAML text."""
    raw = load_plain_yaml(text, source)
    if not isinstance(raw, dict):
        raise InvalidInput(
            f"{source} holds no keys", field="schema", hint="write key: value lines, version first"
        )
    try:
        # JSON mode: strict about types, yet takes whole numbers where fractions are meant.
        schema = TypeAdapter(RagSchema).validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        raise _first_problem(error, source) from error
    _check_whole(schema, source)
    return schema


def _check_whole(schema: RagSchema, source: str) -> None:
    if schema.encoder is not None and schema.database is None:
        raise InvalidInput(
            f"{source}: an encoder without a database",
            field="database",
            hint="add database: {index: exact} for the pieces of the encoder's context",
        )
    if schema.database is None and (schema.reranker or schema.retrieval.per_sequence > 1):
        raise InvalidInput(
            f"{source}: there is nothing to retrieve from", field="database", hint="add a database"
        )
    if schema.database is not None and schema.database.vectors is None and schema.encoder is None:
        raise InvalidInput(
            f"{source}: the number of vectors is not given",
            field="database.vectors",
            hint="give it, or add an encoder whose context is the database",
        )


def _first_problem(error: ValidationError, source: str) -> InvalidInput:
    problems = error.errors(include_url=False)
    unknown = ("unexpected_keyword_argument", "extra_forbidden")
    # A misspelt key is also a missing one; the first tells more.
    problem = next((p for p in problems if p["type"] in unknown), problems[0])
    place = tuple(str(p) for p in problem["loc"])
    if problem["type"] in unknown:
        known = keys_at(place[:-1])
        hint = nearest(place[-1], known)
        return InvalidInput(f"{source}: unknown key", field=".".join(place), hint=hint)
    return InvalidInput(
        f"{source}: {problem['input']!r}: {problem['msg']}",
        field=".".join(place),
        hint="docs/planner.md lists every key and its range",
    )


def keys_at(place: tuple[str, ...]) -> list[str]:
    """Keys that may stand in a part of a schema, such as ``("database",)``."""
    here: Any = RagSchema
    for name in place:
        hint = get_type_hints(here).get(name)
        here = next((t for t in (hint, *get_args(hint)) if is_dataclass(t)), None)
        if here is None:
            return []
    return [f.name for f in fields(here)]


def json_schema() -> dict[str, Any]:
    """JSON Schema of a RAGSchema file, for editors."""
    return TypeAdapter(RagSchema).json_schema()
