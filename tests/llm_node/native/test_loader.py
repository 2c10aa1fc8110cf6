from __future__ import annotations

import pytest
import torch

from llm_node.native import loader


def test_the_extension_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked past the cache, which keeps the first answer of the process."""
    monkeypatch.setenv(loader.WITHOUT, "1")
    assert loader.native.__wrapped__() is None
    monkeypatch.setenv(loader.WITHOUT, "0")
    assert loader.native.__wrapped__() is loader.native()


def test_it_computes_float32_on_the_cpu() -> None:
    assert loader.native_for(torch.device("cpu"), torch.float32) is loader.native()
    assert loader.native_for(torch.device("cpu"), torch.bfloat16) is None
    assert loader.native_for(torch.device("cuda"), torch.float32) is None
