"""What an LLM node is told on its command line, and the bounds it keeps."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llm_node.engine.config import EngineConfig
from ragschema.types import Role


@dataclass(frozen=True)
class NodeLimits:
    """Bounds on one request and on what may wait.

    Attributes:
        max_texts: texts in one Embed or Tokenize call.
        max_embed_bytes: UTF-8 bytes of all texts of one Embed call.
        max_tokenize_bytes: the same for Tokenize; its reply is larger than
            its input, so this stays well below the message limit.
        max_pending_embed_bytes: text of all waiting Embed calls together.
        max_prompt_bytes: text of one Generate call.
        max_stop: stop strings of one Generate call.
        max_stop_chars: characters of one stop string.
    """

    max_texts: int = 4096
    max_embed_bytes: int = 16 << 20
    max_tokenize_bytes: int = 24 << 20
    max_tokenize_reply_bytes: int = 48 << 20
    max_pending_embed_bytes: int = 64 << 20
    max_prompt_bytes: int = 8 << 20
    max_messages: int = 1024
    max_passages: int = 1024
    max_queries: int = 16
    max_nprobe: int = 65_536
    max_scan_reply_bytes: int = 48 << 20
    max_stop: int = 16
    max_stop_chars: int = 256


class EmbedDtype(enum.StrEnum):
    """Of an embedder's weights and layers; what it gives is float32 with either."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class LlmOptions:
    """One LLM node.

    Attributes:
        roles: what it does; a call for another role is refused.
        embedder: ``minilm`` or the directory of a sentence-embedding model.
        embedder_dtype: bfloat16 is quicker where the processor multiplies it.
        reranker: directory of a cross-encoder, for the role rerank.
        generator: ``extractive``, ``hf:DIR`` or ``openai:URL[#MODEL]``.
        rewrite_template: file with the prompt of the role rewrite; None: a prompt of ours.
        rewrite_tokens: that may be written in one Rewrite call.
        api_key_env: environment variable with the upstream server's key.
        threads: CPU threads of one forward pass.
        shares: of a device's time by role, in proportion; one that is not named has 1.
        data_dir: the rig's collections, for the role index_scan.
        engine: of an ``hf:`` generator.
        max_running: generations under way at once.
        max_waiting: requests of one kind that may wait; more are refused.
    """

    name: str
    roles: tuple[Role, ...] = (Role.EMBED, Role.GENERATE)
    embedder: str = "minilm"
    embedder_dtype: EmbedDtype = EmbedDtype.FLOAT32
    generator: str = "extractive"
    reranker: str | None = None
    rewrite_template: str | None = None
    rewrite_tokens: int = 128
    data_dir: Path | None = None
    api_key_env: str | None = None
    threads: int = 1
    shares: Mapping[Role, float] = field(default_factory=dict)
    engine: EngineConfig = field(default_factory=EngineConfig)
    max_running: int = 8
    max_waiting: int = 128
    limits: NodeLimits = field(default_factory=NodeLimits)
