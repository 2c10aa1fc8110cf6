"""The rig file: which nodes make up one deployment, and the limits they obey.

The YAML is untrusted text, so pydantic checks it once; what comes out are
frozen dataclasses. See ``examples/rigs/`` for files to start from.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ragschema.errors import InvalidInput, NotFound
from ragschema.generation import GenerationConfig, IntervalConfig, KnnConfig, check_generation
from ragschema.llm_rig import (
    EngineOptions,
    NodeName,
    Port,
    Positive,
    RoleShares,
    check_llm_node,
)
from ragschema.llm_rig import LlmNodeConfig as LlmNodeConfig
from ragschema.plainyaml import load_plain_yaml
from ragschema.refining import RerankConfig, RewriteConfig, check_rerank

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class BatchConfig:
    """One stage's batcher.

    Attributes:
        max_batch: most requests in one call to a node.
        max_wait_ms: how long the first request of a batch waits for others;
            0 sends at once and batches only what queued behind a running call.
        max_queue: waiting requests beyond which new ones get 429.
        max_concurrent: calls of this stage under way at once.
    """

    __pydantic_config__ = _STRICT
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 32
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 0.0
    max_queue: Annotated[int, Field(ge=1, le=65536)] = 512
    max_concurrent: Annotated[int, Field(ge=1, le=1024)] = 2


@dataclass(frozen=True)
class StagesConfig:
    """A batcher per stage of the pipeline.

    Attributes:
        iterative: retrieval for answers that are being written; how many of them
            are searched for together, and how long the first waits for others.
    """

    __pydantic_config__ = _STRICT
    embed: BatchConfig = field(default_factory=BatchConfig)
    retrieve: BatchConfig = field(default_factory=lambda: BatchConfig(max_batch=64))
    generate: BatchConfig = field(
        default_factory=lambda: BatchConfig(max_batch=1, max_queue=64, max_concurrent=8)
    )
    rerank: BatchConfig = field(
        default_factory=lambda: BatchConfig(max_batch=1, max_queue=64, max_concurrent=4)
    )
    rewrite: BatchConfig = field(
        default_factory=lambda: BatchConfig(max_batch=1, max_queue=64, max_concurrent=8)
    )
    iterative: BatchConfig = field(
        default_factory=lambda: BatchConfig(max_batch=16, max_wait_ms=2.0, max_concurrent=4)
    )


@dataclass(frozen=True)
class LimitsConfig:
    """Bounds on what one request may ask and what the server may hold.

    Attributes:
        max_filter_probe_share: share of an index's lists to which a filter may
            grow a search; 1.0: all of them, so that rare rows are always found.
    """

    __pydantic_config__ = _STRICT
    max_inflight: Annotated[int, Field(ge=1, le=65536)] = 512
    max_body_bytes: Annotated[int, Field(ge=1024)] = 4 << 20
    max_upload_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    max_documents_per_upload: Annotated[int, Field(ge=1, le=100_000)] = 1000
    max_jobs_waiting: Annotated[int, Field(ge=1, le=10_000)] = 16
    max_k: Annotated[int, Field(ge=1, le=1024)] = 100
    max_timeout_ms: Annotated[int, Field(ge=10)] = 600_000
    default_timeout_ms: Annotated[int, Field(ge=10)] = 60_000
    prompt_tokens: Annotated[int, Field(ge=64)] = 3000
    max_filter_probe_share: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True)
class RecallSamplingConfig:
    """Live searches that are compared with exact ones in the background.

    Attributes:
        share: of all searches; 0: none.
        max_per_s: comparisons beyond which searches are left out.
    """

    __pydantic_config__ = _STRICT
    share: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_per_s: Annotated[float, Field(gt=0, le=1000)] = 1.0


@dataclass(frozen=True)
class CoordinatorConfig:
    """The REST server and the pipeline.

    Attributes:
        rerank: None: passages stay as the search ordered them.
        rewrite: None: a question is searched for as it stands.
    """

    __pydantic_config__ = _STRICT
    host: str = "127.0.0.1"
    port: Port = 8080
    api_key_file: str | None = None
    stages: StagesConfig = field(default_factory=StagesConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    recall_sampling: RecallSamplingConfig = field(default_factory=RecallSamplingConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    rerank: RerankConfig | None = None
    rewrite: RewriteConfig | None = None


@dataclass(frozen=True)
class CoalesceConfig:
    """How a retrieval node puts searches of several callers together.

    Attributes:
        max_batch: queries of one kernel call.
        max_wait_us: how long an idle node waits for company; 0: it puts together
            only what queued while it was busy.
    """

    __pydantic_config__ = _STRICT
    max_batch: Annotated[int, Field(ge=1, le=65536)] = 256
    max_wait_us: Annotated[int, Field(ge=0, le=1_000_000)] = 0


DeviceName = Annotated[str, Field(pattern=r"^(emulator|verilator|pynq:.+)$")]


@dataclass(frozen=True)
class RetrievalNodeConfig:
    """One retrieval node. ``address`` set: it runs elsewhere and is only used.

    Attributes:
        device: behind the fpga backend: ``emulator``; ``verilator``, the RTL itself; or
            ``pynq:FILE``, a card with that bitstream. The others have one of their own.
        mode: of the simd backend; None: fast, float IVF-PQ exactly. contract16
            gives the bits of the FPGA.
        tables: who makes the tables of the fpga backend, or how those of contract16 are
            made: ``host`` (None) of floats, ``card`` of integers as a card does.
        cpus: processors for the simd backend's threads, in turn; empty: any.
        numa_node: keep the process and its memory there; None: anywhere.
        memory: map the files, or copy them into huge pages.
    """

    __pydantic_config__ = _STRICT
    name: NodeName
    backend: Literal["fpga", "simd", "faiss", "faiss-gpu"] = "fpga"
    device: DeviceName = "emulator"
    mode: Literal["fast", "contract16"] | None = None
    tables: Literal["host", "card"] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    cpus: Annotated[tuple[Annotated[int, Field(ge=0, le=65535)], ...], Field(max_length=1024)] = ()
    numa_node: Annotated[int, Field(ge=0, le=1023)] | None = None
    memory: Literal["map", "huge"] = "map"
    max_waiting: Annotated[int, Field(ge=1, le=65536)] = 256
    coalesce: CoalesceConfig = field(default_factory=CoalesceConfig)
    host: str = "127.0.0.1"
    port: Port = 0
    address: str | None = None


@dataclass(frozen=True)
class RigConfig:
    """A whole deployment.

    Attributes:
        data_dir: collections, run files and logs; relative to the rig file.
        replicas: how many retrieval nodes hold each shard; divides their number.
    """

    __pydantic_config__ = _STRICT
    version: Literal[1] = 1
    name: NodeName = "rig"
    data_dir: str = "ragrig-data"
    replicas: Positive = 1
    coordinator: CoordinatorConfig = field(default_factory=CoordinatorConfig)
    llm_nodes: Annotated[tuple[LlmNodeConfig, ...], Field(min_length=1)] = (
        LlmNodeConfig(name="llm-0"),
    )
    retrieval_nodes: Annotated[tuple[RetrievalNodeConfig, ...], Field(min_length=1)] = (
        RetrievalNodeConfig(name="ret-0"),
        RetrievalNodeConfig(name="ret-1"),
    )

    @property
    def num_shards(self) -> int:
        """Shards a new collection is cut into: one per group of replicas."""
        return len(self.retrieval_nodes) // self.replicas

    @property
    def disaggregated(self) -> bool:
        """Whether nodes of their own read prompts for others that write answers."""
        return any({"prefill", "decode"} & set(node.roles) for node in self.llm_nodes)

    @property
    def needed_roles(self) -> tuple[str, ...]:
        """Roles without which questions cannot be answered."""
        apart = self.disaggregated and self.coordinator.generation.kind == "plain"
        wanted = {"rerank": self.coordinator.rerank, "rewrite": self.coordinator.rewrite}
        more = tuple(role for role, config in wanted.items() if config is not None)
        return ("embed", *(("prefill", "decode") if apart else ("generate",)), *more)

    def shards_of(self, node_index: int, num_shards: int) -> tuple[int, ...]:
        """Shards of a collection that the retrieval node at this index serves."""
        groups = self.num_shards
        return tuple(s for s in range(num_shards) if s % groups == node_index % groups)


def load_rig(path: Path) -> RigConfig:
    """Reads and checks a rig file; a relative data_dir becomes absolute.

    Raises:
        NotFound: there is no such file.
        InvalidInput: naming the field, the value and the fix.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no rig file {path}",
            hint="see examples/rigs/, or leave -c out for the default rig",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot read {path}: {error}", field="config", hint="name a text file in UTF-8"
        ) from error
    return parse_rig(text, str(path), path.resolve().parent)


def parse_rig(text: str, source: str, base: Path) -> RigConfig:
    """Checks a rig's YAML text; ``base`` anchors a relative data_dir."""
    raw = load_plain_yaml(text, source)
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise InvalidInput(
            f"{source} holds a {type(raw).__name__}", field="config", hint="write key: value lines"
        )
    try:
        # JSON mode: strict about types, yet takes lists where tuples are meant.
        rig = TypeAdapter(RigConfig).validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        raise InvalidInput(**_first_problem(error, source)) from error
    _check_whole(rig, source)
    return _anchored(rig, base)


def _anchored(rig: RigConfig, base: Path) -> RigConfig:
    return replace(rig, data_dir=str((base / Path(rig.data_dir).expanduser()).resolve()))


def _check_whole(rig: RigConfig, source: str) -> None:
    names = [n.name for n in rig.llm_nodes] + [n.name for n in rig.retrieval_nodes]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InvalidInput(
            f"{source}: the name {twice[0]!r} is used twice",
            field="name",
            hint="give every node a name of its own",
        )
    if len(rig.retrieval_nodes) % rig.replicas:
        raise InvalidInput(
            f"{source}: {rig.replicas} replicas do not divide"
            f" {len(rig.retrieval_nodes)} retrieval nodes",
            field="replicas",
            hint="use a divisor of the number of retrieval nodes",
        )
    for number, node in enumerate(rig.retrieval_nodes):
        _check_retrieval_node(node, f"retrieval_nodes.{number}", source)
    for number, llm_node in enumerate(rig.llm_nodes):
        check_llm_node(llm_node, f"llm_nodes.{number}", source)
    present = {role for node in rig.llm_nodes for role in node.roles}
    for role in rig.needed_roles:
        if role not in present:
            raise InvalidInput(
                f"{source}: no LLM node has the role {role}",
                field="llm_nodes.roles",
                hint=f"add {role} to the roles of one LLM node",
            )
    check_generation(rig.coordinator.generation, rig.coordinator.limits.max_k, source)
    check_rerank(rig.coordinator.rerank, rig.coordinator.limits.max_k, source)


def _check_retrieval_node(node: RetrievalNodeConfig, path: str, source: str) -> None:
    if node.tables is not None and node.backend != "fpga" and node.mode != "contract16":
        raise InvalidInput(
            f"{source}: nobody makes integer tables for the {node.backend} backend"
            + (" in mode fast" if node.backend == "simd" else ""),
            field=f"{path}.tables",
            hint="leave it out, or use backend fpga, or simd with mode contract16",
        )
    if node.mode is not None and node.backend != "simd":
        raise InvalidInput(
            f"{source}: the {node.backend} backend has no mode {node.mode!r}",
            field=f"{path}.mode",
            hint="leave mode out, or use backend: simd",
        )
    if node.cpus and node.backend != "simd":
        raise InvalidInput(
            f"{source}: the {node.backend} backend does not pin its threads",
            field=f"{path}.cpus",
            hint="leave cpus out, or use backend: simd",
        )
    if len(set(node.cpus)) != len(node.cpus):
        raise InvalidInput(
            f"{source}: {list(node.cpus)} names a processor twice",
            field=f"{path}.cpus",
            hint="name each processor once",
        )


def _first_problem(error: ValidationError, source: str) -> dict[str, Any]:
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(p) for p in problem["loc"])
    hint = "see docs/operations.md for every key of a rig file"
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        near = difflib.get_close_matches(str(problem["loc"][-1]), _known_keys(), n=1)
        message = f"{source}: unknown key"
        hint = f"did you mean {near[0]}?" if near else hint
    else:
        message = f"{source}: {problem['input']!r}: {problem['msg']}"
    return {"message": message, "field": path, "hint": hint}


def _known_keys() -> list[str]:
    classes = (
        RigConfig, CoordinatorConfig, LimitsConfig, RecallSamplingConfig, StagesConfig,
        BatchConfig, LlmNodeConfig, RetrievalNodeConfig, CoalesceConfig, GenerationConfig,
        IntervalConfig, KnnConfig, EngineOptions, RoleShares, RerankConfig, RewriteConfig,
    )  # fmt: skip
    return sorted({f.name for cls in classes for f in fields(cls)})
