"""Shapes of language models: what cost models need to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated

from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput
from ragschema.userfile import checked_yaml

_STRICT = ConfigDict(extra="forbid", strict=True)
_Size = Annotated[int, Field(ge=1, le=10_000_000)]


@dataclass(frozen=True)
class Transformer:
    """A dense decoder.

    Attributes:
        ffn: inner width of the gated feed-forward part.
        head_dim: per head.
        source: where the numbers are from.
    """

    __pydantic_config__ = _STRICT
    hidden: _Size
    layers: _Size
    heads: _Size
    kv_heads: _Size
    head_dim: _Size
    ffn: _Size
    vocabulary: _Size
    source: str

    @property
    def parameters(self) -> float:
        """Weights that take part in a pass; the embedding table counts once."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        per_layer = attention + 3 * self.hidden * self.ffn
        return float(self.layers * per_layer + self.hidden * self.vocabulary)

    @property
    def kv_values_per_token(self) -> int:
        """Elements of the KV cache per token."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@cache
def catalogue() -> dict[str, Transformer]:
    """Known models by name."""
    text = resources.files("ragschema").joinpath("models.yaml").read_text(encoding="utf-8")
    return checked_yaml(text, "models.yaml", dict[str, Transformer], "see the other models")


def find_model(name: str) -> Transformer:
    """Raises InvalidInput naming the known models."""
    known = catalogue()
    if name not in known:
        raise InvalidInput(
            f"{name!r} is not in the catalogue of models",
            field="model",
            hint=f"use one of {', '.join(sorted(known))}",
        )
    return known[name]
