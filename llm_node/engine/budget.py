"""How many KV blocks there will be."""

from __future__ import annotations

import torch

from llm_node.engine.config import EngineConfig
from llm_node.engine.kv import KvLayout
from ragschema.errors import InvalidInput

#: Shares of free memory the cache may take when it is not told: other processes
#: live on a CPU's memory, and a GPU needs some for activations.
_CPU_SHARE, _CUDA_SHARE = 0.4, 0.85


def blocks_for(
    config: EngineConfig, layout: KvLayout, request_tokens: int, device: torch.device
) -> int:
    """Blocks of the cache.

    Args:
        request_tokens: the longest request, prompt and answer.

    Raises:
        InvalidInput: not even one request of that length fits.
    """
    block_bytes = layout.token_bytes * config.block_tokens
    per_request = -(-request_tokens // config.block_tokens)
    budget = config.kv_bytes
    if budget is None:
        share = _CPU_SHARE if device.type == "cpu" else _CUDA_SHARE
        budget = min(
            int(free_bytes(device) * share), per_request * config.max_running * block_bytes
        )
    blocks = budget // block_bytes
    if blocks < per_request:
        raise InvalidInput(
            f"{budget} bytes hold {blocks * config.block_tokens} tokens of"
            f" {layout.token_bytes} bytes, one request may have {request_tokens}",
            field="kv_bytes",
            hint=f"allow {per_request * block_bytes} bytes, or lower max_tokens_per_request",
        )
    return blocks


def free_bytes(device: torch.device) -> int:
    """Memory that can be allocated on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
