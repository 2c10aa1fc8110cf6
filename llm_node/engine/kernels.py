"""Which attention a device gets."""

from __future__ import annotations

import importlib
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from llm_node.engine import attention_native, attention_static, attention_torch
from llm_node.engine.attention import Backend
from llm_node.engine.kv import KvLayout
from llm_node.engine.trial import differs
from llm_node.native.loader import WITHOUT, native

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernels:
    """The attention of an engine.

    Attributes:
        attend: to any batch.
        recorded: to single tokens, with shapes that depend on the tables' shape alone
            and no value read on the host, so that a CUDA graph can hold it.
        table_blocks: blocks per sequence that recorded steps have room for at least;
            ``recorded`` takes no longer for what a sequence does not use of them.
    """

    attend: Backend
    recorded: Backend = attention_static.attend
    table_blocks: int = 1


#: Blocks of a sequence in one shape of recorded steps; longer ones get shapes of their own.
_TABLE_BLOCKS = 256


def kernels_for(device: torch.device, layout: KvLayout) -> Kernels:
    """The quickest attention there is for a device; torch's own where nothing else works."""
    if device.type == "cuda":
        attend = _triton(device, layout)
        return _with_torch() if attend is None else Kernels(attend, attend, _TABLE_BLOCKS)
    module = native()
    if module is None or layout.dtype not in (torch.float32, torch.bfloat16):
        return _with_torch()
    return Kernels(attention_native.backend(module))


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Makes a GPU the one that kernels and streams without a device of their own are for."""
    if device.type != "cuda" or device.index is None:  # cuda without a number is the current one
        return nullcontext()
    return torch.cuda.device(device)


def _with_torch() -> Kernels:
    return Kernels(attention_torch.attend)


def _triton(device: torch.device, layout: KvLayout) -> Backend | None:
    """Our kernels, where they can be compiled for a model and give what torch gives."""
    if os.environ.get(WITHOUT) == "1":
        return None
    try:
        attend: Backend = importlib.import_module("llm_node.engine.attention_triton").attend
        with current(device):
            difference = differs(attend, device, layout)
    except Exception as error:  # noqa: BLE001 - a compiler that fails has errors of its own
        _LOG.warning("attention by torch, since Triton's kernels do not run: %s", _line(error))
        return None
    if difference is not None:
        _LOG.warning("attention by torch, since Triton's kernels are off by %s", difference)
        return None
    return attend


def _line(error: Exception) -> str:
    """Compilers quote their input first and say at the end what is wrong with it."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
