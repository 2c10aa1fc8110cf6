"""What the options of a node need beside themselves: models, keys, a generator that can."""

from __future__ import annotations

import os

from llm_node.config import LlmOptions
from ragschema.errors import InvalidInput
from ragschema.types import Role


def reranker_of(options: LlmOptions) -> str:
    """The reranker's directory; InvalidInput when none is named."""
    if options.reranker is None:
        raise InvalidInput(
            "the role rerank has no model",
            field="reranker",
            hint="name the directory of a cross-encoder with --reranker",
        )
    return options.reranker


def check_generator(options: LlmOptions) -> None:
    """KV is moved between engines, and queries are written by language models.

    Raises:
        InvalidInput: the generator cannot play one of the roles.
    """
    scheme = options.generator.partition(":")[0]
    lacking = {"openai": {Role.PREFILL, Role.DECODE}}.get(scheme, set())
    if scheme == "extractive":
        lacking = {Role.PREFILL, Role.DECODE, Role.REWRITE}
    wrong = sorted(lacking & set(options.roles))
    if wrong:
        others = " or openai:URL" if wrong == [Role.REWRITE] else ""
        raise InvalidInput(
            f"the generator {options.generator!r} cannot {' or '.join(wrong)}",
            field="generator",
            hint=f"use hf:DIR{others} for the roles {' and '.join(wrong)}",
        )


def api_key_of(options: LlmOptions) -> str | None:
    """The key in the named variable; InvalidInput names the variable, never the key."""
    if options.api_key_env is None:
        return None
    key = os.environ.get(options.api_key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise InvalidInput(
            f"the environment variable {options.api_key_env} "
            + ("holds no usable key" if key else "is not set"),
            field="api_key_env",
            hint="set it to the upstream server's key before starting the node",
        )
    return key
