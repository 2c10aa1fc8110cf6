"""Effort: what a request asks for becomes settings of its collection's index."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.types import SearchSpec
from ragschema.errors import IncompatibleRequest
from ragschema.recall import RecallCurve
from ragschema.storage.manifest import IndexRef, Manifest

#: What a retrieval node takes at most, for k and for refinement.
MAX_NODE_K = 4096


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to look.

    Attributes:
        nprobe: lists to scan before filters are thought of; None: the
            collection keeps exact vectors and has no lists.
        refine_k: candidates to rescore; None: none.
        recall_expected: from the index's curve; None where nothing tells it.
        recall_reached: whether the wanted recall is expected; None: none was
            wanted.
    """

    nprobe: int | None
    refine_k: int | None
    recall_expected: float | None
    recall_reached: bool | None


class Planner:
    """Knows one committed state's index and default; made once, asked per request."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._curve = RecallCurve(manifest.index.curve if manifest.index else ())

    def effort(self, spec: SearchSpec) -> Effort:
        """``nprobe`` or ``recall`` of the request, else the collection's own.

        Raises:
            IncompatibleRequest: a recall is asked of an index nothing was
                measured of.
        """
        index = self._manifest.index
        wanted = spec.recall
        if wanted is None and spec.nprobe is None:
            wanted = self._manifest.recall
        if index is None:
            return Effort(None, None, 1.0, None if wanted is None else True)
        if wanted is None:
            return self._settings(spec, index, None)
        if not self._curve:
            if spec.recall is None:
                # A default must not make a collection unsearchable.
                return self._settings(spec, index, False)
            raise IncompatibleRequest(
                f"no recall was measured of collection {self._manifest.collection!r}",
                field="recall",
                hint=f"measure it with `ragrig index tune {self._manifest.collection}`,"
                " or ask with nprobe",
            )
        choice = self._curve.choose(wanted)
        nprobe = min(choice.nprobe, index.nlist)
        refine_k = _refine_k(spec.k, choice.refine_factor)
        return Effort(nprobe, refine_k, choice.expected, choice.reached)

    def _settings(self, spec: SearchSpec, index: IndexRef, reached: bool | None) -> Effort:
        nprobe = min(spec.nprobe or index.nprobe, index.nlist)
        expected = self._curve.expected(nprobe, index.refine_factor)
        return Effort(nprobe, _refine_k(spec.k, index.refine_factor), expected, reached)


def _refine_k(k: int, factor: int | None) -> int | None:
    return None if factor is None else min(MAX_NODE_K, k * factor)
