"""A model's shape from the ``config.json`` of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragschema.errors import InvalidInput
from ragschema.models import Mla, Moe, Transformer
from ragschema.userfile import read_user_text

#: Names that families give the same figure.
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def read_config(path: Path) -> Transformer:
    """The decoder that a checkpoint's configuration describes.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is no configuration of a decoder; names the key.
    """
    text = read_user_text(path, "model configuration", "give a checkpoint's config.json")
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}", field="model") from error
    if not isinstance(raw, dict):
        raise InvalidInput(f"{path} holds no keys", field="model")
    # Models of several modalities keep the decoder's part by itself.
    part = raw.get("text_config")
    return _Config(part if isinstance(part, dict) else raw, path).model()


class _Config:
    def __init__(self, raw: Mapping[str, Any], path: Path) -> None:
        self._raw = raw
        self._path = path

    def model(self) -> Transformer:
        hidden = self._size("hidden_size")
        heads = self._size("num_attention_heads")
        mla = self._mla()
        head_dim = self._size("head_dim", hidden // heads)
        moe = self._moe()
        ffn = self._size("intermediate_size", moe.ffn if moe is not None else None)
        return Transformer(
            hidden=hidden,
            layers=self._size("num_hidden_layers"),
            heads=heads,
            kv_heads=self._size("num_key_value_heads", heads),
            head_dim=head_dim,
            ffn=ffn,
            vocabulary=self._size("vocab_size"),
            source=str(self._path),
            moe=moe,
            mla=mla,
        )

    def _moe(self) -> Moe | None:
        name = next((n for n in _EXPERTS if self._raw.get(n)), None)
        if name is None:
            return None
        return Moe(
            experts=self._size(name),
            per_token=self._size("num_experts_per_tok"),
            ffn=self._size("moe_intermediate_size", self._raw.get("intermediate_size")),
            shared=self._raw.get("n_shared_experts") or 0,
            dense_layers=self._raw.get("first_k_dense_replace") or 0,
        )

    def _mla(self) -> Mla | None:
        if not self._raw.get("kv_lora_rank"):
            return None
        return Mla(
            kv_rank=self._size("kv_lora_rank"),
            rope_dim=self._size("qk_rope_head_dim"),
            nope_dim=self._size("qk_nope_head_dim"),
            value_dim=self._size("v_head_dim"),
            q_rank=self._raw.get("q_lora_rank"),
        )

    def _size(self, name: str, default: int | None = None) -> int:
        value = self._raw.get(name)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInput(
                f"{self._path}: {name} is {value!r}",
                field=f"model.{name}",
                hint="give the config.json of a decoder, with whole numbers above 0",
            )
        return value
