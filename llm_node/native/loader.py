"""The compiled extension, where there is one."""

from __future__ import annotations

import functools
import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Set to 1 to do without the extension, as on a machine that has no compiler.
WITHOUT = "RAGRIG_NO_NATIVE"


@functools.cache
def native() -> ModuleType | None:
    """``llm_node.native._kernels``, or None where it was not built.

    The answer is that of the first call, for the life of the process.
    """
    if os.environ.get(WITHOUT) == "1":
        return None
    try:
        return importlib.import_module("llm_node.native._kernels")
    except ModuleNotFoundError:
        return None


def native_for(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The extension where it can compute with tensors of a device and dtype, else None."""
    # By name, so that nothing here needs torch.
    return native() if device.type == "cpu" and str(dtype) == "torch.float32" else None
