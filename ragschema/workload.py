"""RAGSchema: a retrieval-augmented workload in one YAML file.

The attributes are those of RAGO's table 1 (arXiv 2503.14649) and the lengths, precisions
and objectives that a plan needs besides. ``examples/schemas/`` has the paper's four cases.
The YAML is untrusted text: pydantic checks it once, frozen dataclasses come out.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from ragschema.errors import InvalidInput
from ragschema.lengths import LengthsConfig, Tokens
from ragschema.plainyaml import load_plain_yaml
from ragschema.traffic import ArrivalsConfig, ClassConfig, check_arrivals, check_classes
from ragschema.userfile import checked_yaml, read_user_text

_STRICT = ConfigDict(extra="forbid", strict=True)

Count = Annotated[int, Field(ge=1, le=4096)]
Amount = Annotated[float, Field(gt=0, le=1e15)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
#: In the catalogue, or the path of a checkpoint's configuration.
ModelName = Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9.-]{0,63}|.{1,4000}\.json)$")]
Width = Literal["int4", "int8", "fp8", "bf16", "fp16", "fp32"]


def bytes_of(width: Width) -> float:
    """Bytes per number."""
    return {"int4": 0.5, "int8": 1.0, "fp8": 1.0, "bf16": 2.0, "fp16": 2.0, "fp32": 4.0}[width]


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
class CurvePointConfig:
    """Recall at a share of the vectors that is scanned."""

    __pydantic_config__ = _STRICT
    scan_share: Share
    recall: Share


@dataclass(frozen=True)
class DatabaseConfig:
    """What is searched.

    Attributes:
        vectors: in all; None: the pieces of the encoder's context.
        bytes_per_vector: of a PQ code, or of the whole vector where exact.
        index: ``tree`` scans ``scan_share`` of the leaves of a tree, ``ivfpq`` that share of
            ``nlist`` lists; ``exact`` compares all.
        fanout: children per node of the tree.
        dims: of a vector, as coarse search sees it.
        nlist: of ivfpq.
        results: k, rows that a retrieval returns.
        recall: wanted; replaces ``scan_share`` by what the curve gives for it.
        curve: measured, in any order.
    """

    __pydantic_config__ = _STRICT
    vectors: Amount | None = None
    bytes_per_vector: Amount = 96.0
    index: Literal["tree", "ivfpq", "exact"] = "tree"
    scan_share: Share = 0.001
    fanout: Annotated[int, Field(ge=2, le=1_000_000)] = 4096
    dims: Annotated[int, Field(ge=1, le=65_536)] = 768
    nlist: Annotated[int, Field(ge=1, le=100_000_000)] = 16_384
    results: Annotated[int, Field(ge=1, le=1024)] = 10
    recall: Share | None = None
    curve: tuple[CurvePointConfig, ...] = ()

    @property
    def scanned_share(self) -> float:
        """Of the vectors, for the wanted recall where one is given."""
        if self.recall is None:
            return self.scan_share
        points = sorted(self.curve, key=lambda p: p.scan_share)
        reach = itertools.accumulate((p.recall for p in points), max)
        recalls, shares = [0.0, *reach], [0.0, *(p.scan_share for p in points)]
        at = bisect.bisect_left(recalls, self.recall)
        # Recall is concave in what is scanned: a straight line errs towards more work.
        part = (self.recall - recalls[at - 1]) / (recalls[at] - recalls[at - 1])
        return shares[at - 1] + part * (shares[at] - shares[at - 1])


@dataclass(frozen=True)
class RetrievalConfig:
    """How often the database is asked.

    Attributes:
        per_sequence: retrievals per answer; more than 1 happen during decode.
        queries: query vectors per retrieval.
        reads: tokens that the model reads after each later retrieval, in place of as many
            that it read before; None: the passages, which are the prompt without the
            question; 0: nothing, as with kNN-LM.
    """

    __pydantic_config__ = _STRICT
    per_sequence: Count = 1
    queries: Count = 1
    reads: Annotated[int, Field(ge=0, le=100_000_000)] | None = None


@dataclass(frozen=True)
class CacheConfig:
    """What need not be computed again.

    Attributes:
        document_kv_hit: share of the retrieved passages' tokens whose KV is kept.
    """

    __pydantic_config__ = _STRICT
    document_kv_hit: Annotated[float, Field(ge=0, le=1)] = 0.0


@dataclass(frozen=True)
class ObjectivesConfig:
    """Service objectives; None: none.

    Attributes:
        ttft_s: of a burst at an empty system, on average.
        ttft_p50_s ... e2e_p99_s: percentiles under the schema's arrivals at ``load`` of the
            plan's rate, by simulation; end to end is until the last token.
        tpot_s: per output token in a full decode batch.
        qps: to be served.
    """

    __pydantic_config__ = _STRICT
    ttft_s: Seconds | None = None
    ttft_p50_s: Seconds | None = None
    ttft_p99_s: Seconds | None = None
    tpot_p50_s: Seconds | None = None
    tpot_p99_s: Seconds | None = None
    e2e_p50_s: Seconds | None = None
    e2e_p99_s: Seconds | None = None
    load: Share = 0.7
    tpot_s: Seconds | None = None
    qps: Amount | None = None


@dataclass(frozen=True)
class RagSchema:
    """A whole workload; a stage that is None is not there.

    Attributes:
        classes: kinds of requests; empty: all are alike.
    """

    __pydantic_config__ = _STRICT
    version: Literal[1]
    name: Name
    generator: GeneratorConfig
    lengths: LengthsConfig = field(default_factory=LengthsConfig)
    database: DatabaseConfig | None = None
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    encoder: EncoderConfig | None = None
    rewriter: RewriterConfig | None = None
    reranker: RerankerConfig | None = None
    cache: CacheConfig = field(default_factory=CacheConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    classes: tuple[ClassConfig, ...] = ()
    arrivals: ArrivalsConfig = field(default_factory=ArrivalsConfig)


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
    schema = checked_yaml(text, source, RagSchema, "docs/planner.md lists every key and its range")
    _check_whole(schema, source)
    check_classes(schema.classes, source)
    check_arrivals(schema.arrivals, source)
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
    if schema.database is not None:
        _check_recall(schema.database, source)
    if schema.database is not None and schema.database.vectors is None and schema.encoder is None:
        raise InvalidInput(
            f"{source}: the number of vectors is not given",
            field="database.vectors",
            hint="give it, or add an encoder whose context is the database",
        )


def _check_recall(database: DatabaseConfig, source: str) -> None:
    if database.recall is None:
        return
    best = max((p.recall for p in database.curve), default=None)
    if best is None:
        raise InvalidInput(
            f"{source}: a wanted recall needs a measured curve",
            field="database.curve",
            hint="give [{scan_share: ..., recall: ...}], or scan_share instead of recall",
        )
    if database.recall > best:
        raise InvalidInput(
            f"{source}: the curve ends at {best:g}, {database.recall:g} is wanted",
            field="database.recall",
            hint=f"ask for at most {best:g}, or measure the curve further",
        )


def json_schema() -> dict[str, Any]:
    """JSON Schema of a RAGSchema file, for editors."""
    return TypeAdapter(RagSchema).json_schema()
