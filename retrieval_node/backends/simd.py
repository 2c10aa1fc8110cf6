"""The compiled scan on the CPU: float IVF-PQ, or the bits of the FPGA."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

from ragschema.errors import IncompatibleRequest, InvalidInput
from retrieval_node.backends.base import Candidates, ScanRequest
from retrieval_node.fixedpoint import Contract, TablesBy
from retrieval_node.found import to_candidates
from retrieval_node.native.loader import require_native
from retrieval_node.shard import ShardSet

#: fast: exact float IVF-PQ behind an integer filter. contract16: docs/numerics.md.
Mode = Literal["fast", "contract16"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
#: Longer codes do not fit the 16-bit sums of the contract's kernels.
_CONTRACT_MAX_M = 256


class SimdBackend:
    """Implements ``base.Backend``; refines by itself.

    Args:
        threads: of one search, the calling thread among them.
        cpus: worker i is pinned to ``cpus[i % len(cpus)]``; empty: no pinning.
        contract: word widths of mode contract16, and how its tables are made.

    Raises:
        Unavailable: the extension was not built.
        InvalidInput: an unknown mode, or a CPU this process may not use.
    """

    name = "simd"
    device = "cpu"

    def __init__(
        self,
        mode: str = "fast",
        threads: int = 1,
        cpus: tuple[int, ...] = (),
        contract: Contract | None = None,
    ) -> None:
        if mode not in MODES:
            raise InvalidInput(
                f"{mode!r} is not a mode", field="mode", hint=f"use one of {', '.join(MODES)}"
            )
        module = require_native()
        widths = contract or Contract()
        self.mode = mode
        self._options: dict[str, Any] = {}
        self._search: Any = module.search
        if mode == "contract16":
            self._search = module.contract_search
            self._options = {
                "table_bits": widths.table_bits,
                "sum_bits": widths.sum_bits,
                "integers": widths.tables is TablesBy.CARD,
            }
        try:
            self._pool: Any = module.Pool(threads, list(cpus))
        except ValueError as error:
            raise InvalidInput(
                str(error), field="threads", hint="check threads and cpus"
            ) from error

    @property
    def pool(self) -> Any:
        return self._pool

    def load(self, shard_set: ShardSet) -> None:
        """Nothing is copied: the scan reads the shards where they are mapped.

        Raises:
            IncompatibleRequest: codes longer than mode contract16 can sum.
        """
        index = shard_set.index
        if index is not None and self.mode == "contract16" and index.m > _CONTRACT_MAX_M:
            raise IncompatibleRequest(
                f"codes of {index.m} bytes are longer than {_CONTRACT_MAX_M}",
                field="mode",
                hint="use mode fast",
            )

    def search(self, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        assert shard_set.index is not None, "an exact collection has no codes"
        segments = [
            segment
            for number in request.shards
            for segment in shard_set.shards[number].segments
            if segment.codes is not None
        ]
        found = self._search(
            shard_set.index.handle,
            [segment.handle for segment in segments],
            request.queries,
            request.lists,
            request.k,
            self._pool,
            refine_k=request.refine_k or 0,
            refine_queries=request.refine_queries,
            live=request.live,
            filters=request.filters,
            filter_of=request.filter_of,
            cancel=None if request.cancel is None else request.cancel.handle,
            **self._options,
        )
        return to_candidates(found, segments)

    def close(self) -> None:
        """Nothing is held beside the threads, which end with the backend."""
