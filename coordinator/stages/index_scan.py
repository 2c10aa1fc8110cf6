"""Index scan: the probe on an LLM node's device, where one has that role."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from coordinator.collections.snapshot import Snapshot
from coordinator.nodes.pool import NodePool
from coordinator.stages.probe import CoarseIndex, padded
from ragschema.errors import DeadlineExceeded, RagrigError, UpstreamError
from ragschema.types import F32, I32, CallContext, Role

log = logging.getLogger(__name__)


class IndexScanStage:
    """Asks the least busy node; whoever cannot answer is done without."""

    def __init__(self, pool: NodePool) -> None:
        self._pool = pool

    async def __call__(
        self,
        snapshot: Snapshot,
        index: CoarseIndex,
        queries: F32,
        widths: Sequence[int],
        context: CallContext,
    ) -> I32 | None:
        """int32 [n, max(widths)] as ``ProbeStage`` gives it; None: find them here.

        Raises:
            DeadlineExceeded: there is no time left for that either.
        """
        ref = snapshot.manifest.index
        if ref is None or not self._pool.can_play(Role.INDEX_SCAN, None, frozenset()):
            return None
        node = self._pool.player(Role.INDEX_SCAN, fingerprint=None, tried=frozenset())
        width = min(max(widths), index.nlist)
        try:
            lists = await node.index_scan(snapshot.id.collection, ref.file, queries, width, context)
            if lists.shape[1] != width or not _within(lists, index.nlist):
                raise UpstreamError(f"node {node.name} named lists that do not exist")
        except DeadlineExceeded:
            raise
        except RagrigError as error:
            log.warning("trace %s: probing here, not on %s: %s", context.trace_id, node.name, error)
            return None
        return padded(lists.copy(), widths)


def _within(lists: I32, nlist: int) -> bool:
    return not lists.size or bool(0 <= lists.min() <= lists.max() < nlist)
