"""The paged KV cache in device memory: slots by layer, snapshots in and out.

Slot ``block * block_tokens + offset`` of a layer holds one token's K as
[kv_heads, head_dim]; a layer's K is one tensor [slots, kv_heads, head_dim], so
``view(-1, block_tokens, kv_heads, head_dim)`` gives its blocks.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llm_node.native.loader import native_for
from ragschema.errors import IncompatibleRequest


@dataclass(frozen=True)
class LayerShape:
    """KV of one token in one layer.

    Attributes:
        window: tokens a token sees, itself included; None for all before it.
    """

    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None

    @property
    def elements(self) -> int:
        return self.kv_heads * (self.key_dim + self.value_dim)


@dataclass(frozen=True)
class KvLayout:
    """What one token's KV takes, over all layers."""

    layers: tuple[LayerShape, ...]
    dtype: torch.dtype

    @property
    def token_bytes(self) -> int:
        return sum(layer.elements for layer in self.layers) * self.dtype.itemsize


@dataclass(frozen=True)
class KvSnapshot:
    """The KV of one sequence, away from the device.

    Attributes:
        token_ids: the tokens the KV belongs to, at least ``computed``.
        computed: tokens with KV.
        keys: per layer, CPU tensor [computed, kv_heads, key_dim], contiguous.
        values: per layer, CPU tensor [computed, kv_heads, value_dim], contiguous.
        fingerprint: of the model; another model's KV is refused.
    """

    token_ids: tuple[int, ...]
    computed: int
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    dtype: torch.dtype
    fingerprint: str


class KvCache:
    """K and V of every layer.

    Attributes:
        keys: per layer [slots, kv_heads, key_dim].
        values: per layer [slots, kv_heads, value_dim].
    """

    def __init__(
        self, layout: KvLayout, blocks: int, block_tokens: int, device: torch.device
    ) -> None:
        self.layout = layout
        self.blocks = blocks
        self.block_tokens = block_tokens
        self.device = device
        self._kernels = native_for(device, layout.dtype)
        #: One more block, which no sequence holds: padding reads and writes it.
        self.scratch_slot = blocks * block_tokens
        slots = (blocks + 1) * block_tokens
        self.keys = [
            _zeros((slots, s.kv_heads, s.key_dim), layout.dtype, device) for s in layout.layers
        ]
        self.values = [
            _zeros((slots, s.kv_heads, s.value_dim), layout.dtype, device) for s in layout.layers
        ]

    def write(
        self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Puts K and V of [tokens, kv_heads, dim] at int64 slots [tokens], all distinct."""
        self._put(self.keys[layer], slots, keys)
        self._put(self.values[layer], slots, values)

    def _put(self, pool: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor) -> None:
        if self._kernels is None or rows.stride(-1) != 1:
            pool.index_copy_(0, slots, rows)
            return
        self._kernels.scatter(
            pool.numpy(), slots.numpy(), rows.numpy(), threads=torch.get_num_threads()
        )

    def slots(self, blocks: Sequence[int], tokens: int) -> torch.Tensor:
        """int64 [tokens], where the first tokens of a block table lie."""
        table = torch.tensor(blocks, dtype=torch.int64, device=self.device)
        place = torch.arange(tokens, device=self.device)
        return table[place // self.block_tokens] * self.block_tokens + place % self.block_tokens

    def export(
        self, blocks: Sequence[int], token_ids: Sequence[int], computed: int, fingerprint: str
    ) -> KvSnapshot:
        """A copy of the first ``computed`` tokens' KV."""
        slots = self.slots(blocks, computed)
        return KvSnapshot(
            token_ids=tuple(token_ids),
            computed=computed,
            keys=tuple(k[slots].cpu() for k in self.keys),
            values=tuple(v[slots].cpu() for v in self.values),
            dtype=self.layout.dtype,
            fingerprint=fingerprint,
        )

    def load(self, snapshot: KvSnapshot, blocks: Sequence[int]) -> None:
        """Copies a snapshot, checked before, into the blocks of a table."""
        slots = self.slots(blocks, snapshot.computed)
        for layer in range(len(self.keys)):
            self.write(
                layer,
                slots,
                snapshot.keys[layer].to(self.device),
                snapshot.values[layer].to(self.device),
            )

    def check(self, snapshot: KvSnapshot, fingerprint: str) -> None:
        """Raises IncompatibleRequest when a snapshot does not fit this cache."""
        problem = self._misfit(snapshot, fingerprint)
        if problem is not None:
            raise IncompatibleRequest(
                f"the KV snapshot {problem}",
                field="snapshot",
                hint="prefill and decode nodes must load the same checkpoint in the same dtype",
            )

    def _misfit(self, snapshot: KvSnapshot, fingerprint: str) -> str | None:
        if snapshot.fingerprint != fingerprint:
            return f"comes from model {snapshot.fingerprint}, this is {fingerprint}"
        if snapshot.dtype != self.layout.dtype:
            return f"is {snapshot.dtype}, this cache {self.layout.dtype}"
        if not 0 < snapshot.computed <= len(snapshot.token_ids):
            return f"has {snapshot.computed} of {len(snapshot.token_ids)} tokens"
        shapes = self.layout.layers
        if len(snapshot.keys) != len(shapes) or len(snapshot.values) != len(shapes):
            return f"has {len(snapshot.keys)} layers, this model {len(shapes)}"
        for i, s in enumerate(shapes):
            wanted = (snapshot.computed, s.kv_heads)
            if tuple(snapshot.keys[i].shape) != (*wanted, s.key_dim) or tuple(
                snapshot.values[i].shape
            ) != (*wanted, s.value_dim):
                return f"has other shapes in layer {i}"
            if snapshot.keys[i].dtype != snapshot.dtype or snapshot.values[i].dtype != (
                snapshot.dtype
            ):
                return f"has another dtype in layer {i}"
        return None


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros that take no memory on the CPU until they are written, page by page.

    Small pages: where the system makes 2 MiB of zeros at once, a step that comes to a new
    one in each layer takes three times as long, and pages in use read no slower by more
    than 2 %.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    carrier = np.dtype({4: np.uint32, 2: np.uint16}[dtype.itemsize])
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return torch.from_numpy(np.zeros(shape, dtype=carrier)).view(dtype)
    size = math.prod(shape) * carrier.itemsize
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.from_numpy(np.frombuffer(pages, dtype=carrier).reshape(shape)).view(dtype)
