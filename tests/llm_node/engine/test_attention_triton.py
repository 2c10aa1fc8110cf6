"""The Triton kernels against a loop that is plainly right, and compiled for real GPUs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from llm_node.engine.attention import AttentionParams
from tests.llm_node.engine.interpreter import need_interpreter
from tests.llm_node.engine.ragged import MIXED, Shape, largest_error

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
#: Contexts of several splits, of fewer tokens than splits, and at their borders.
LONG = ((700, 1), (0, 1), (63, 1), (64, 1), (127, 1), (1023, 1), (300, 1))


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cpu":
        need_interpreter()
    elif not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return name


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The backend; without a GPU its kernels are interpreted."""
    pytest.importorskip("triton", reason="Triton has wheels for Linux on x86-64 alone")
    return importlib.import_module("llm_node.engine.attention_triton")


@pytest.mark.parametrize("window", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_ragged_batches(
    kernels: ModuleType, device: str, window: int | None, softcap: float | None
) -> None:
    how = AttentionParams(0, 0.3, window, softcap)
    assert largest_error(kernels.attend, how, device) < 2e-5


@pytest.mark.parametrize(
    "shape",
    [
        Shape(heads=4, kv_heads=4, dim=16, value_dim=16),
        Shape(heads=7, kv_heads=1, dim=64, value_dim=64, block_tokens=16),
        Shape(heads=48, kv_heads=2, dim=24, value_dim=40, block_tokens=3),
        Shape(heads=2, kv_heads=1, dim=128, value_dim=128, block_tokens=16),
    ],
)
def test_shapes_of_heads(kernels: ModuleType, device: str, shape: Shape) -> None:
    how = AttentionParams(0, shape.dim**-0.5)
    lengths = (*MIXED, (0, 70), (33, 40))
    assert largest_error(kernels.attend, how, device, shape, lengths) < 2e-5


@pytest.mark.parametrize("window", [None, 5, 200])
@pytest.mark.parametrize("programs", [256, 4096])
def test_splits_are_joined(
    kernels: ModuleType,
    device: str,
    window: int | None,
    programs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "_PROGRAMS", programs)
    assert kernels.splits(len(LONG) * 2, 1024) == 16
    how = AttentionParams(0, 0.3, window)
    shape = Shape(block_tokens=16)
    assert largest_error(kernels.attend, how, device, shape, LONG) < 2e-5


def test_float16(kernels: ModuleType, device: str) -> None:
    assert _half(kernels, device, torch.float16) < 4e-3


@pytest.mark.gpu
def test_bfloat16(kernels: ModuleType) -> None:
    """On a GPU alone: the interpreter multiplies bfloat16 as if they were integers."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    assert _half(kernels, "cuda", torch.bfloat16) < 3e-2


def _half(kernels: ModuleType, device: str, dtype: torch.dtype) -> float:
    shape = Shape(heads=4, kv_heads=2, dim=16, value_dim=16, dtype=dtype)
    lengths = (*LONG, (0, 90), (50, 40))
    return largest_error(kernels.attend, AttentionParams(0, 0.25), device, shape, lengths)


def test_tiles_hold_every_new_token_once(kernels: ModuleType) -> None:
    tiles = kernels.tiles_of((1, 1, 5, 8, 1), 2, 4)
    assert tiles == [(2, 4), (2, 0), (3, 4), (3, 0), (4, 0)]


@pytest.mark.parametrize(
    ("programs", "tokens", "splits"),
    [
        (8, 4096, 32),
        (8, 640, 8),
        (64, 4096, 4),
        (512, 4096, 1),
        (512, 40000, 8),
        (8, 16, 1),
        (1, 1 << 20, 64),
    ],
)
def test_splits_keep_a_gpu_busy_with_enough_for_each(
    kernels: ModuleType, programs: int, tokens: int, splits: int
) -> None:
    assert kernels.splits(programs, tokens) == splits


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(
    ("dtype", "dim", "rows", "tokens", "splits"),
    [
        ("bf16", 64, 16, 64, 8),
        ("bf16", 128, 64, 64, 1),
        ("fp16", 256, 64, 32, 1),
        ("fp32", 128, 16, 32, 1),
    ],
)
def test_kernels_compile_for_gpus(
    capability: int, dtype: str, dim: int, rows: int, tokens: int, splits: int
) -> None:
    """The interpreter takes more than the compiler does; this needs no GPU."""
    sizes = [capability, dtype, dim, rows, tokens, splits]
    made = subprocess.run(
        [sys.executable, "-m", "tests.llm_node.engine.compile_kernels", *map(str, sizes)],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 0, made.stderr
    assert all(int(size) > 1000 for size in made.stdout.split())
