"""How long transformers take on accelerators: a roofline per operator.

Every operator of a layer takes ``max(FLOPs / peak, bytes / bandwidth)``; only weights and
the KV cache count as bytes. n chips are split into data, tensor and pipeline parallel
parts. Source: RAGO (arXiv 2503.14649), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ragschema.hardware.devices import Accelerator
from ragschema.models import Mla, Transformer


@dataclass(frozen=True)
class Precision:
    """Bytes per number.

    Attributes:
        weight_bytes, kv_bytes: per weight, per element of the KV cache.
        activation_bytes: of what tensor-parallel chips exchange.
    """

    weight_bytes: float = 1.0
    kv_bytes: float = 2.0
    activation_bytes: float = 2.0


@dataclass(frozen=True)
class Split:
    """n chips as data x tensor x pipeline parallel parts."""

    data: int
    tensor: int
    pipeline: int


@dataclass(frozen=True)
class Work:
    """What one forward pass of one replica does.

    Attributes:
        sequences: in the pass.
        tokens: new tokens per sequence.
        context: mean number of tokens that a new token attends to.
    """

    sequences: int
    tokens: float
    context: float


def splits(chips: int, model: Transformer) -> Iterator[Split]:
    """All factorisations; a tensor-parallel part holds whole KV heads, a stage whole layers."""
    for tensor in range(1, min(chips, model.tensor_limit) + 1):
        if chips % tensor or model.tensor_limit % tensor:
            continue
        rest = chips // tensor
        for pipeline in range(1, min(rest, model.layers) + 1):
            if rest % pipeline == 0:
                yield Split(rest // pipeline, tensor, pipeline)


def pass_s(
    model: Transformer, chip: Accelerator, precision: Precision, work: Work, split: Split
) -> float:
    """Seconds of one forward pass through all layers and the LM head.

    Layers that do not divide over the pipeline stages leave stages unequal; the longest
    one sets the pace, so the time of the layers grows by ``pp ceil(L / pp) / L``.
    """
    roof = _Roof(chip, precision, split.tensor)
    fresh = work.sequences * work.tokens
    reduce_s = 2 * all_reduce_s(
        fresh * model.hidden * precision.activation_bytes, split.tensor, chip
    )
    layer_s = _attention_s(model, roof, work, fresh) + _ffn_s(model, roof, fresh) + reduce_s
    uneven = split.pipeline * math.ceil(model.layers / split.pipeline)
    return uneven * layer_s + roof.matmul_s(model.hidden, model.vocabulary, work.sequences)


class _Roof:
    """What the chips of one tensor-parallel part reach together."""

    def __init__(self, chip: Accelerator, precision: Precision, chips: int) -> None:
        self.peak = chip.flops_per_s * chip.compute_share * chips
        self.bandwidth = chip.memory_bytes_per_s * chip.memory_share * chips
        self.precision = precision
        self.chips = chips

    def matmul_s(self, inputs: int, outputs: float, rows: float, copies: float = 1.0) -> float:
        """Of rows with weights; ``copies`` such matrices are read, each row uses one."""
        weights = inputs * outputs
        weight_bytes = copies * weights * self.precision.weight_bytes
        return max(2.0 * rows * weights / self.peak, weight_bytes / self.bandwidth)


def _attention_s(model: Transformer, roof: _Roof, work: Work, fresh: float) -> float:
    if model.mla is not None:
        return _latent_s(model, model.mla, roof, work, fresh)
    hidden, heads, kv = model.hidden, model.heads * model.head_dim, model.kv_heads * model.head_dim
    kv_read_bytes = work.sequences * work.context * 2 * kv * roof.precision.kv_bytes
    return (
        roof.matmul_s(hidden, heads + 2 * kv, fresh)
        + max(4.0 * fresh * work.context * heads / roof.peak, kv_read_bytes / roof.bandwidth)
        + roof.matmul_s(heads, hidden, fresh)
    )


def _latent_s(model: Transformer, mla: Mla, roof: _Roof, work: Work, fresh: float) -> float:
    """Latent attention on the compressed rows themselves, which every chip of a part holds."""
    row = mla.kv_rank + mla.rope_dim
    read_bytes = work.sequences * work.context * row * roof.precision.kv_bytes * roof.chips
    scores = 2.0 * fresh * work.context * model.heads * (row + mla.kv_rank)
    projections_s = roof.matmul_s(1, model.attention_parameters, fresh)
    return projections_s + max(scores / roof.peak, read_bytes / roof.bandwidth)


def _ffn_s(model: Transformer, roof: _Roof, fresh: float) -> float:
    """Of a layer, on average over dense ones and ones with experts."""
    up = model.ffn_matrices - 1
    dense_s = roof.matmul_s(model.hidden, up * model.ffn, fresh) + roof.matmul_s(
        model.ffn, model.hidden, fresh
    )
    moe = model.moe
    if moe is None:
        return dense_s
    rows, touched = fresh * (moe.per_token + moe.shared), moe.touched(fresh)
    experts_s = roof.matmul_s(model.hidden, up * moe.ffn, rows, touched) + roof.matmul_s(
        moe.ffn, model.hidden, rows, touched
    )
    dense = moe.dense_layers / model.layers
    return dense * dense_s + (1 - dense) * experts_s


def all_reduce_s(nbytes: float, chips: int, chip: Accelerator) -> float:
    """A ring all-reduce of so many bytes: 2 (n - 1) steps, each with 1 / n of them."""
    steps = 2 * (chips - 1)
    return steps * (nbytes / chips / chip.link_bytes_per_s + chip.link_latency_s)


def encode_s(
    parameters: float,
    chip: Accelerator,
    weight_bytes: float,
    chips: int,
    sequences: int,
    tokens: int,
) -> float:
    """Seconds for an encoder to read sequences of so many tokens, spread over the chips."""
    mine = math.ceil(sequences / chips)
    flops = 2.0 * parameters * mine * tokens
    return max(
        flops / (chip.flops_per_s * chip.encoder_share),
        parameters * weight_bytes / (chip.memory_bytes_per_s * chip.memory_share),
    )
