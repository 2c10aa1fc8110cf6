"""The part of a rig file that describes LLM nodes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput

_STRICT = ConfigDict(extra="forbid", strict=True)
#: What an engine that is told nothing takes: see ``EngineOptions``.
STEP_TOKENS: Final = 512
PREFILL_CHUNK: Final = 48

Port = Annotated[int, Field(ge=0, le=65535)]

NodeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1000)]


def _given(options: Any) -> dict[str, Any]:
    told = ((one.name, getattr(options, one.name)) for one in fields(options))
    return {name: value for name, value in told if value is not None}


@dataclass(frozen=True)
class EngineOptions:
    """What an ``hf:`` generator's engine is told; None: the engine's own default.

    Attributes:
        device: where weights and KV lie.
        dtype: of both; auto takes the checkpoint's own.
        block_tokens: tokens of a KV block, the unit of allocation and reuse.
        max_tokens_per_request: prompt and answer together.
        max_running: sequences in the batch at once.
        step_tokens: tokens of one forward pass.
        prefill_chunk: prompt tokens of one pass while answers are being written.
        prefix_reuse: keep the KV of prompts for later ones that begin alike.
        cuda_graphs: replay recorded decode steps on a GPU.
        compile_steps: fuse the kernels of recorded steps.
    """

    __pydantic_config__ = _STRICT
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]+)?)$")] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    block_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    max_tokens_per_request: Positive | None = None
    max_running: Annotated[int, Field(ge=1, le=4096)] | None = None
    step_tokens: Positive | None = None
    prefill_chunk: Positive | None = None
    prefix_reuse: bool | None = None
    cuda_graphs: bool | None = None
    compile_steps: bool | None = None

    def given(self) -> dict[str, str | int | bool]:
        """Those that are set, by name."""
        return _given(self)


@dataclass(frozen=True)
class RoleShares:
    """Of a device's time, in proportion, by role; None: 1.

    Roles that one model plays, such as generate and rewrite, have the sum of theirs.
    """

    __pydantic_config__ = _STRICT
    embed: Share | None = None
    generate: Share | None = None
    prefill: Share | None = None
    decode: Share | None = None
    rerank: Share | None = None
    rewrite: Share | None = None
    index_scan: Share | None = None

    def given(self) -> dict[str, float]:
        """Those that are set, by role."""
        return _given(self)


@dataclass(frozen=True)
class LlmNodeConfig:
    """One LLM node. ``address`` set: it runs elsewhere and is only used.

    Attributes:
        embedder: ``minilm`` or the directory of a sentence-embedding model.
        embedder_dtype: of its weights and layers; vectors are float32 with either.
        generator: ``extractive``, ``hf:DIR`` or ``openai:URL[#MODEL]``.
        reranker: directory of a cross-encoder, needed by the role rerank.
        rewrite_template: file with the prompt of the role rewrite; None: a prompt of ours.
        rewrite_tokens: that one question's queries may have together.
        api_key_env: environment variable with the upstream server's key.
        shares: of its roles' time where they share a device.
        cpus: processors that the process stays on; empty: any.
        kv_mib: KV cache of an ``hf:`` generator in MiB; None: a share of free memory.
        engine: of an ``hf:`` generator.
    """

    __pydantic_config__ = _STRICT
    name: NodeName
    roles: Annotated[
        tuple[
            Literal["embed", "generate", "prefill", "decode", "rerank", "rewrite", "index_scan"],
            ...,
        ],
        Field(min_length=1),
    ] = (
        "embed",
        "generate",
    )
    embedder: str = "minilm"
    embedder_dtype: Literal["float32", "bfloat16"] = "float32"
    generator: Annotated[str, Field(pattern=r"^(extractive|hf:.+|openai:https?://.+)$")] = (
        "extractive"
    )
    reranker: str | None = None
    rewrite_template: str | None = None
    rewrite_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    api_key_env: str | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    shares: RoleShares = field(default_factory=RoleShares)
    cpus: Annotated[tuple[Annotated[int, Field(ge=0, le=65535)], ...], Field(max_length=1024)] = ()
    kv_mib: Positive | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    max_running: Annotated[int, Field(ge=1, le=1024)] = 8
    max_waiting: Annotated[int, Field(ge=1, le=65536)] = 128
    host: str = "127.0.0.1"
    port: Port = 0
    address: str | None = None


def check_llm_node(node: LlmNodeConfig, path: str, source: str) -> None:
    """Raises InvalidInput, naming the field, for a role that has no model.

    Args:
        path: of the node in the file, such as ``llm_nodes.0``.
    """
    if "rerank" in node.roles and node.reranker is None and node.address is None:
        raise InvalidInput(
            f"{source}: the role rerank of {node.name!r} has no model",
            field=f"{path}.reranker",
            hint="name the directory of a cross-encoder",
        )
    if "rewrite" in node.roles and node.generator == "extractive" and node.address is None:
        raise InvalidInput(
            f"{source}: the extractive generator of {node.name!r} cannot rewrite",
            field=f"{path}.generator",
            hint="use hf:DIR or openai:URL on a node with the role rewrite",
        )
    for role in node.shares.given():
        if role not in node.roles:
            raise InvalidInput(
                f"{source}: {node.name!r} does not have the role {role}",
                field=f"{path}.shares.{role}",
                hint=f"add {role} to its roles, or leave its share out",
            )
