"""Which attention a device gets, and the trial before Triton's."""

from __future__ import annotations

import re

import pytest
import torch

from llm_node.engine import attention_static, attention_torch, kernels
from llm_node.engine.attention import AttentionParams, Backend
from llm_node.engine.kv import KvLayout, LayerShape
from llm_node.engine.packed import PackedBatch
from llm_node.engine.trial import differs
from llm_node.native.loader import WITHOUT
from tests.llm_node.engine.interpreter import need_interpreter

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def _layout(dtype: torch.dtype, *dims: tuple[int, int]) -> KvLayout:
    shapes = dims or ((16, 16),)
    return KvLayout(tuple(LayerShape(3, key, value) for key, value in shapes), dtype)


def _off(by: float) -> Backend:
    def attend(batch: PackedBatch, query: torch.Tensor, how: AttentionParams) -> torch.Tensor:
        out = attention_torch.attend(batch, query, how)
        out[-1, -1, -1] += by
        return out

    return attend


def _with_trial(monkeypatch: pytest.MonkeyPatch, result: float | Exception | None) -> list[str]:
    """Lets the trial on a GPU end with ``result``; the devices it was asked for."""
    pytest.importorskip("triton", reason="Triton has wheels for Linux on x86-64 alone")
    tried = []

    def trial(_attend: Backend, device: torch.device, told: KvLayout) -> float | None:
        tried.append(f"{device} {told.dtype}")
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(kernels, "differs", trial)
    return tried


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_trial_accepts_what_is_right(dtype: torch.dtype) -> None:
    assert differs(attention_torch.attend, CPU, _layout(dtype)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_trial_finds_one_wrong_number(dtype: torch.dtype) -> None:
    assert differs(_off(0.125), CPU, _layout(dtype)) == pytest.approx(0.125, rel=0.1)
    nan = differs(_off(float("nan")), CPU, _layout(dtype))
    assert nan is not None
    assert nan != nan


def test_a_trial_tries_every_width() -> None:
    def attend(batch: PackedBatch, query: torch.Tensor, how: AttentionParams) -> torch.Tensor:
        out = attention_torch.attend(batch, query, how)
        return out + 0.5 if query.shape[2] == 32 else out

    assert differs(attend, CPU, _layout(torch.float32, (16, 16), (32, 16))) == pytest.approx(0.5)
    assert differs(attend, CPU, _layout(torch.float32, (16, 16), (16, 32))) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_triton_passes_its_trial(dtype: torch.dtype) -> None:
    """Interpreted."""
    need_interpreter()
    from llm_node.engine import attention_triton

    assert differs(attention_triton.attend, CPU, _layout(dtype, (64, 64), (24, 40))) is None


def test_a_gpu_gets_triton_after_its_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = _with_trial(monkeypatch, None)
    chosen = kernels.kernels_for(GPU, _layout(torch.bfloat16))
    assert tried == ["cuda torch.bfloat16"]
    assert chosen.attend.__module__ == "llm_node.engine.attention_triton"
    assert chosen.recorded is chosen.attend
    assert chosen.table_blocks == 256


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (RuntimeError("no C compiler\nwas found"), "RuntimeError: .*was found"),
        (0.5, "off by 0.5"),
    ],
)
def test_a_failed_trial_leaves_torch_and_a_warning(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    result: float | Exception,
    told: str,
) -> None:
    _with_trial(monkeypatch, result)
    chosen = kernels.kernels_for(GPU, _layout(torch.float16))
    assert chosen == kernels.Kernels(attention_torch.attend, attention_static.attend, 1)
    (record,) = caplog.records
    assert re.search(told, record.getMessage())


def test_a_gpu_without_kernels_gets_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = _with_trial(monkeypatch, None)
    monkeypatch.setenv(WITHOUT, "1")
    assert kernels.kernels_for(GPU, _layout(torch.float16)).attend is attention_torch.attend
    assert not tried
