"""Backends by name. Each is imported only when it is asked for."""

from __future__ import annotations

from typing import Final

from ragschema.errors import InvalidInput
from retrieval_node.backends.base import Backend

BACKENDS: Final = ("fpga", "faiss")
DEVICES: Final = ("emulator",)


def open_backend(name: str, device: str = "emulator", threads: int = 1) -> Backend:
    """A backend ready to load shards.

    Args:
        device: behind the fpga backend; the faiss backend runs on the CPU.
        threads: scans that may run at once.

    Raises:
        InvalidInput: an unknown backend or device.
    """
    if name == "fpga":
        from retrieval_node.backends.fpga.backend import FpgaBackend
        from retrieval_node.backends.fpga.devices import open_device

        return FpgaBackend(open_device(device, threads))
    if name == "faiss":
        from retrieval_node.backends.faiss_backend import FaissBackend

        return FaissBackend()
    raise InvalidInput(
        f"{name!r} is not a backend", field="backend", hint=f"use one of {', '.join(BACKENDS)}"
    )
