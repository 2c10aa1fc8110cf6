"""Backends by name. Each is imported only when it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from ragschema.errors import InvalidInput
from retrieval_node.backends.base import Backend
from retrieval_node.fixedpoint import Contract, TablesBy
from retrieval_node.native.loader import native

log = logging.getLogger(__name__)

BACKENDS: Final = ("fpga", "simd", "faiss", "faiss-gpu")
#: Those that need the extension; faiss stands in where it was not built.
_COMPILED: Final = ("fpga", "simd")


def open_backend(
    name: str,
    *,
    device: str = "emulator",
    threads: int = 1,
    mode: str = "fast",
    tables: str = "host",
    cpus: Sequence[int] = (),
) -> Backend:
    """A backend ready to load shards.

    Without the compiled extension simd and fpga become faiss, with a warning:
    the same codes and lists, float sums, no numeric contract.

    Args:
        device: behind the fpga backend; the others choose by themselves.
        threads: of one search (simd), or searches at once (fpga).
        mode: of the simd backend, fast or contract16.
        tables: of fpga and contract16: made by the host of floats, or as a card makes
            them, of integers (``card``).
        cpus: the simd backend's threads are pinned to these.

    Raises:
        InvalidInput: an unknown backend, device, mode or CPU.
        Unavailable: faiss-gpu without a GPU or without faiss-gpu.
    """
    if name not in BACKENDS:
        raise InvalidInput(
            f"{name!r} is not a backend", field="backend", hint=f"use one of {', '.join(BACKENDS)}"
        )
    if tables not in {by.value for by in TablesBy}:
        raise InvalidInput(f"{tables!r} is not host or card", field="tables")
    by = TablesBy(tables)
    if name in _COMPILED and native() is None:
        log.warning(
            "the compiled scan is not there, %s is replaced by faiss:"
            " install a C++ compiler and ragrig again",
            name,
        )
        name = "faiss"
    if name == "simd":
        from retrieval_node.backends.simd import SimdBackend

        return SimdBackend(mode, threads, tuple(cpus), Contract(tables=by))
    if name == "fpga":
        from retrieval_node.backends.fpga.backend import FpgaBackend
        from retrieval_node.backends.fpga.devices import open_device

        return FpgaBackend(open_device(device, threads), tables=by)
    if name == "faiss-gpu":
        from retrieval_node.backends.faiss_gpu import FaissGpuBackend

        return FaissGpuBackend()
    from retrieval_node.backends.faiss_backend import FaissBackend

    return FaissBackend()
