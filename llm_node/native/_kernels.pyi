"""The compiled kernels. Every call that works releases the GIL."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
#: bfloat16 by its bits.
Bf16 = NDArray[np.uint16]

Isa = Literal["avx512", "avx2", "portable"]

def machine_isas() -> list[Isa]:
    """Code paths this machine can run, best first; "portable" is always there."""

def multiplies_halves() -> bool:
    """Whether this machine has instructions that multiply bfloat16, which torch uses."""

class Batch:
    """Who is in a step, for all layers.

    Args:
        starts: int32 [B + 1], first row of each sequence's new tokens.
        contexts: int32 [B], tokens of each sequence, the new ones among them.
        tables: int32 [B, width], blocks of each sequence; padding is not read.
        blocks: of the cache.

    Raises:
        ValueError: they do not fit each other, or a block is not in the cache.
    """

    def __init__(
        self, starts: I32, contexts: I32, tables: I32, block_tokens: int, blocks: int
    ) -> None: ...
    def attend(
        self,
        query: F32,
        keys: F32 | Bf16,
        values: F32 | Bf16,
        out: F32,
        *,
        scale: float,
        window: int | None = ...,
        softcap: float | None = ...,
        threads: int = ...,
        isa: Isa | None = ...,
    ) -> None:
        """out [T, heads, value_dim] of query [T, heads, dim] over the whole cache of a
        layer, keys [slots, kv_heads, dim] and values [slots, kv_heads, value_dim], of
        one dtype. Sums are in float32.

        Only the last dimension of ``query`` must be contiguous. ``window``: tokens a
        token sees, itself included. ``isa``: force a code path, for tests.

        Raises:
            ValueError: naming the argument that does not fit.
        """

def scatter(pool: F32, slots: I64, rows: F32, *, threads: int = ...) -> None:
    """pool[slots[t]] = rows[t]; pool [slots, heads, dim], slots int64 [T], rows [T, heads, dim].

    Only the last dimension of ``rows`` must be contiguous; slots must be distinct.

    Raises:
        ValueError: naming the argument that does not fit.
    """

def linear(
    x: F32,
    weight: F32 | Bf16,
    bias: F32 | None,
    y: F32,
    *,
    threads: int = ...,
    isa: Isa | None = ...,
) -> None:
    """y [T, out] of x [T, in] and weight [out, in], which is read where it lies.

    Sums are in float32, whatever the weight.

    Raises:
        ValueError: naming the argument that does not fit.
    """
