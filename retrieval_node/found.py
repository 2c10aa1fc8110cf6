"""What a compiled search hands back, as the rest of the node wants it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ragschema.storage.blockhead import corrupt
from ragschema.types import Metric
from retrieval_node.backends.base import Candidates
from retrieval_node.cancel import raise_stopped
from retrieval_node.segment import SegmentRows


def native_metric(metric: Metric) -> Literal["l2", "ip"]:
    """Cosine is inner product on vectors of unit length."""
    return "l2" if metric is Metric.L2 else "ip"


def to_candidates(found: Any, segments: Sequence[SegmentRows]) -> Candidates:
    """A ``native.Found`` without copies.

    Args:
        segments: those given to the call, in its order.

    Raises:
        Cancelled, DeadlineExceeded: the search was stopped.
        CorruptData: naming the file and the offset of the block at fault.
    """
    stopped = found.stopped
    if stopped == "corrupt":
        raise corrupt(
            segments[found.corrupt_segment].path,
            f"what lies at byte {found.corrupt_offset} is not what was written",
        )
    if stopped:
        raise_stopped(stopped)
    return Candidates(
        found.distances, found.rows, found.counts, found.codes_scanned, found.survivors
    )
