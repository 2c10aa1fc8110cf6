"""The fastest scan there is on this machine, for measuring."""

from __future__ import annotations

from retrieval_node.backends.base import Backend
from retrieval_node.backends.registry import open_backend
from retrieval_node.native.loader import native


def open_scanner(threads: int) -> Backend:
    """Mode fast of the compiled scan, or faiss where it was not built."""
    if native() is None:
        return open_backend("faiss", threads=threads)
    return open_backend("simd", threads=threads)
