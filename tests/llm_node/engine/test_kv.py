"""The memory of the KV cache."""

from __future__ import annotations

import mmap
from pathlib import Path

import psutil
import pytest
import torch

from llm_node.engine.kv import KvCache, KvLayout, LayerShape


def _cache(blocks: int, dtype: torch.dtype = torch.float32) -> KvCache:
    return KvCache(KvLayout((LayerShape(4, 64, 64),), dtype), blocks, 16, torch.device("cpu"))


def test_what_was_not_written_takes_no_memory_and_is_zero() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    kv = _cache(16_000)  # 500 MiB
    assert process.memory_info().rss - before < 50 << 20
    assert not kv.keys[0][kv.scratch_slot - 16 : kv.scratch_slot].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cache_is_written_and_read(dtype: torch.dtype) -> None:
    kv = _cache(8, dtype)
    slots = torch.tensor([5, 127, 64])
    keys, values = torch.randn(3, 4, 64).to(dtype), torch.randn(3, 4, 64).to(dtype)
    kv.write(0, slots, keys, values)
    assert torch.equal(kv.keys[0][slots], keys)
    assert torch.equal(kv.values[0][slots], values)
    assert kv.keys[0].is_contiguous()
    assert kv.keys[0].shape == ((8 + 1) * 16, 4, 64)


@pytest.mark.skipif(
    not hasattr(mmap, "MADV_NOHUGEPAGE") or not Path("/proc/self/smaps").exists(),
    reason="needs Linux",
)
def test_its_pages_are_small() -> None:
    """Making 2 MiB of zeros in every layer at once would hold up whoever is being answered."""
    kv = _cache(1000)
    address = kv.keys[0].data_ptr()
    flags, inside = "", False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        span = line.split(" ", 1)[0].split("-")
        if len(span) == 2:
            inside = int(span[0], 16) <= address < int(span[1], 16)
        elif inside and line.startswith("VmFlags"):
            flags = line
    assert " nh" in flags
