"""Shapes of language models: what cost models need to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput
from ragschema.userfile import checked_yaml

_STRICT = ConfigDict(extra="forbid", strict=True)
_Size = Annotated[int, Field(ge=1, le=10_000_000)]
_Some = Annotated[int, Field(ge=0, le=10_000_000)]


@dataclass(frozen=True)
class Moe:
    """Feed-forward parts of which a token takes some.

    Attributes:
        experts: in a layer; a token goes through ``per_token`` of them.
        ffn: inner width of one expert.
        shared: experts that every token goes through besides.
        dense_layers: first layers that have one feed-forward part instead.
    """

    __pydantic_config__ = _STRICT
    experts: _Size
    per_token: _Size
    ffn: _Size
    shared: _Some = 0
    dense_layers: _Some = 0

    def touched(self, tokens: float) -> float:
        """Experts of a layer that so many tokens take, on average, at even choice."""
        untouched: float = (1 - self.per_token / self.experts) ** tokens
        return self.experts * (1 - untouched) + self.shared


@dataclass(frozen=True)
class Mla:
    """Latent attention: one compressed row per token in place of K and V per head.

    Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1.

    Attributes:
        kv_rank, rope_dim: of the row that is kept per token and layer.
        q_rank: of the compressed query; None: it is not compressed.
        nope_dim, value_dim: per head, without positions, and of the output.
    """

    __pydantic_config__ = _STRICT
    kv_rank: _Size
    rope_dim: _Size
    nope_dim: _Size
    value_dim: _Size
    q_rank: _Size | None = None


@dataclass(frozen=True)
class Transformer:
    """A decoder.

    Attributes:
        ffn: inner width of the gated feed-forward part, of dense layers.
        head_dim: per head.
        source: where the numbers are from.
        moe: layers have experts; None: they are dense.
        mla: attention is latent; None: K and V per head.
        gated: the feed-forward part has three matrices, not two.
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
    moe: Moe | None = None
    mla: Mla | None = None
    gated: bool = True

    @property
    def ffn_matrices(self) -> int:
        """Of a feed-forward part."""
        return 3 if self.gated else 2

    @property
    def attention_parameters(self) -> float:
        """Of a layer."""
        if self.mla is None:
            return float(self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads))
        mla, query = self.mla, self.mla.nope_dim + self.mla.rope_dim
        ask = self.heads * query * (mla.q_rank or self.hidden) + self.hidden * (mla.q_rank or 0)
        keep = self.hidden * (mla.kv_rank + mla.rope_dim)
        expand = mla.kv_rank * self.heads * (mla.nope_dim + mla.value_dim)
        return float(ask + keep + expand + self.heads * mla.value_dim * self.hidden)

    @property
    def parameters(self) -> float:
        """All weights that a pass may need; the embedding table counts once."""
        dense = self.layers if self.moe is None else self.moe.dense_layers
        ffn = dense * self.ffn_matrices * self.hidden * self.ffn
        if self.moe is not None:
            each = self.ffn_matrices * self.hidden * self.moe.ffn
            ffn += (self.layers - dense) * (self.moe.experts + self.moe.shared) * each
        attention = self.layers * self.attention_parameters
        return float(attention + ffn + self.hidden * self.vocabulary)

    @property
    def kv_values_per_token(self) -> int:
        """Elements of the KV cache per token."""
        if self.mla is not None:
            return self.layers * (self.mla.kv_rank + self.mla.rope_dim)
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def tensor_limit(self) -> int:
        """Parts that tensor parallelism may split it into: whole heads of K and V."""
        return self.heads if self.mla is not None else self.kv_heads


@cache
def catalogue() -> dict[str, Transformer]:
    """Known models by name."""
    text = resources.files("ragschema").joinpath("models.yaml").read_text(encoding="utf-8")
    return checked_yaml(text, "models.yaml", dict[str, Transformer], "see the other models")


def find_model(name: str) -> Transformer:
    """A model of the catalogue, or of a checkpoint's ``config.json`` by its path.

    Raises:
        InvalidInput: naming the known models, or what the file lacks.
        NotFound: there is no such file.
    """
    if name.endswith(".json"):
        from ragschema.checkpoint_config import read_config

        return read_config(Path(name))
    known = catalogue()
    if name not in known:
        raise InvalidInput(
            f"{name!r} is not in the catalogue of models",
            field="model",
            hint="give the path of a checkpoint's config.json, or use one of "
            + ", ".join(sorted(known)),
        )
    return known[name]
