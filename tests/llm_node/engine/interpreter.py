"""Whether Triton's kernels are interpreted; see conftest.py."""

from __future__ import annotations

import pytest
import torch


def need_interpreter() -> None:
    """Skips a test of the kernels on the CPU's tensors where they cannot be interpreted."""
    pytest.importorskip("triton", reason="Triton has wheels for Linux on x86-64 alone")
    if torch.cuda.is_available():
        pytest.skip("with a GPU kernels are compiled")
