"""The bridge from transformers' attention interface to the paged cache.

A model built with ``attn_implementation=NAME`` calls one function per layer with
rotated q, k and v of the packed batch. The function finds its context in the
keyword ``ragrig``: a ``PagedAttention`` in service, a ``Probe`` at start-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from llm_node.engine.kv import LayerShape
from llm_node.engine.packed import PackedBatch
from ragschema.errors import IncompatibleRequest, InternalError

NAME = "ragrig_paged"


@dataclass(frozen=True)
class AttentionParams:
    """How one layer attends.

    Attributes:
        scale: scores are multiplied by it.
        window: tokens a token sees, itself included; None for all before it.
        softcap: scores become ``softcap * tanh(score / softcap)``; None leaves them.
    """

    layer: int
    scale: float
    window: int | None = None
    softcap: float | None = None


class AttentionContext(Protocol):
    """What travels as the keyword ``ragrig``."""

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: AttentionParams
    ) -> torch.Tensor:
        """[T, heads, value_dim] for [T, heads, dim] and new K, V [T, kv_heads, dim]."""
        ...


#: Attention of a batch: (batch, query, how) -> [T, heads, value_dim]; K and V of
#: the batch's own tokens lie in the cache already.
Backend = Callable[[PackedBatch, torch.Tensor, AttentionParams], torch.Tensor]


@dataclass(frozen=True)
class PagedAttention:
    """Writes the new K and V into the cache, then attends over it."""

    batch: PackedBatch
    backend: Backend

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: AttentionParams
    ) -> torch.Tensor:
        self.batch.kv.write(how.layer, self.batch.slots, key, value)
        return self.backend(self.batch, query, how)


def register() -> None:
    """Makes the attention known to transformers; again is harmless."""
    from transformers import AttentionInterface

    # No mask function of that name: transformers then makes no mask at all.
    AttentionInterface.register(NAME, _attention)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    ragrig: AttentionContext | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """q [1, heads, T, dim], k and v [1, kv_heads, T, dim] -> [1, T, heads, value_dim]."""
    if ragrig is None:
        raise InternalError(f"{type(module).__name__} lost the batch on its way to attention")
    if s_aux is not None or getattr(module, "is_causal", True) is False:
        raise IncompatibleRequest("attention sinks and attention to later tokens are not served")
    if attention_mask is not None:  # transformers makes none for us: it is the model's own
        raise IncompatibleRequest("attention with a mask of the model's own is not served")
    how = AttentionParams(
        layer=module.layer_idx,
        scale=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        window=sliding_window,
        softcap=softcap,
    )
    out = ragrig.attend(
        query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), how
    )
    return out[None], None


@dataclass
class Probe:
    """Notes what each layer asks for and attends to nothing."""

    layers: dict[int, LayerShape] = field(default_factory=dict)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: AttentionParams
    ) -> torch.Tensor:
        if how.layer in self.layers:
            raise IncompatibleRequest(f"layer {how.layer} attends twice")
        shape = LayerShape(key.shape[1], key.shape[2], value.shape[2], how.window)
        self.layers[how.layer] = shape
        return query.new_zeros(query.shape[0], query.shape[1], value.shape[2])


def probe(module: Any, device: torch.device) -> tuple[LayerShape, ...]:
    """KV shapes of every layer, in order, found by a pass over two tokens."""
    context = Probe()
    ids = torch.zeros(1, 2, dtype=torch.int64, device=device)
    with torch.inference_mode():
        module(
            input_ids=ids,
            position_ids=torch.arange(2, device=device)[None],
            use_cache=False,
            logits_to_keep=torch.ones(1, dtype=torch.int64, device=device),
            ragrig=context,
        )
    if sorted(context.layers) != list(range(len(context.layers))) or not context.layers:
        raise IncompatibleRequest(
            f"it attends in layers {sorted(context.layers)} through the attention interface"
        )
    return tuple(context.layers[i] for i in range(len(context.layers)))


def check_layers(layers: tuple[LayerShape, ...], text_config: Any, served: frozenset[str]) -> None:
    """Raises IncompatibleRequest when config.json tells of layers unlike those seen."""
    if len(layers) != text_config.num_hidden_layers:
        raise IncompatibleRequest(
            f"{len(layers)} of {text_config.num_hidden_layers} layers have a KV cache"
        )
    kinds = getattr(text_config, "layer_types", None) or ()
    for kind, layer in zip(kinds, layers, strict=False):
        if kind not in served:
            raise IncompatibleRequest(f"layers of type {kind} are not served")
        if kind == "sliding_attention" and layer.window is None:
            raise IncompatibleRequest("a sliding layer does not tell its window")
    window = None if kinds else getattr(text_config, "sliding_window", None)
    if window is not None and all(layer.window is None for layer in layers):
        raise IncompatibleRequest(f"no layer tells the sliding_window of {window}")
    if getattr(text_config, "attn_temperature_tuning", False):
        # Llama 4 counts positions by rows, which here belong to many sequences.
        raise IncompatibleRequest("attn_temperature_tuning is not served")
