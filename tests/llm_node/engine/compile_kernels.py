"""Compiles the Triton kernels for a GPU that need not be there.

Arguments: capability, dtype, dim, rows, tokens, splits.
A program of its own, since a process that interprets kernels cannot compile any.
"""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from llm_node.engine import paged_kernels


def main(capability: int, dtype: str, dim: int, rows: int, tokens: int, splits: int) -> None:
    """Prints the bytes of both kernels' programs."""
    sizes = {
        "HEADS": 8, "KV_HEADS": 2, "DIM": dim, "VALUE_DIM": dim, "BLOCK_TOKENS": 16,
        "WINDOW": 0, "SCALE": 0.1, "CAP": 50.0 * (dim == 256), "SINGLE": splits > 1,
        "SPLITS": splits, "ROWS": rows, "TOKENS": tokens,
        "DIM_LANES": dim, "VALUE_LANES": dim, "PRECISION": "ieee",
    }  # fmt: skip
    types = dict.fromkeys(("query", "keys", "values"), f"*{dtype}")
    types |= dict.fromkeys(("out", "sums"), "*fp32" if splits > 1 else f"*{dtype}")
    types |= dict.fromkeys(("query_token", "query_head", "table_row"), "i32")
    _compile(paged_kernels.attend_tiles, types, sizes, capability)
    joined = {"VALUE_DIM": dim, "SPLITS": max(2, splits), "VALUE_LANES": dim}
    parts = {"out": f"*{dtype}", "parts": "*fp32", "sums": "*fp32"}
    _compile(paged_kernels.combine, parts, joined, capability)


def _compile(kernel: Any, types: dict[str, str], sizes: dict[str, Any], capability: int) -> None:
    names = kernel.arg_names
    signature = {name: types.get(name, "*i32") for name in names}
    signature |= dict.fromkeys(sizes, "constexpr")
    constants = {(names.index(name),): value for name, value in sizes.items()}
    source = ASTSource(kernel, signature, constants, {})
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    print(len(made.asm["cubin"]))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
