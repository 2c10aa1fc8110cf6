"""Process-wide settings of torch and transformers, made before their import."""

from __future__ import annotations

import os
from typing import Any

from ragschema import procs


def prepare_environment(threads: int) -> None:
    """Thread pools and offline switches; call before torch is imported."""
    procs.calm_thread_pools(threads)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def set_torch_threads(threads: int) -> None:
    """Limits intra-op threads; a second pool only makes a small machine slower."""
    import torch

    torch.set_num_threads(threads)


def quiet_transformers() -> None:
    """Progress bars do not belong into a node's log."""
    import transformers.utils.logging

    transformers_logging: Any = transformers.utils.logging
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def first_line(error: Exception) -> str:
    """What a library said, without its pages of advice."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
