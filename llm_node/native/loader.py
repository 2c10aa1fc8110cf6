"""The compiled extension, where there is one."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import TYPE_CHECKING

from ragschema.extension import WITHOUT as WITHOUT
from ragschema.extension import load_extension

if TYPE_CHECKING:
    import torch


@functools.cache
def native() -> ModuleType | None:
    """``llm_node.native._kernels``, or None where it was not built.

    The answer is that of the first call, for the life of the process.
    """
    return load_extension("llm_node.native._kernels")


def native_for(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The extension where it can compute with tensors of a device and dtype, else None."""
    # By name, so that nothing here needs torch.
    return native() if device.type == "cpu" and str(dtype) == "torch.float32" else None
