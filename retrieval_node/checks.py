"""What a search must fulfil that only the loaded collection can tell."""

from __future__ import annotations

import numpy as np

from ragschema.errors import IncompatibleRequest, InvalidInput, NotFound
from ragschema.types import I32, SearchBatch
from retrieval_node.fixedpoint import check_magnitude
from retrieval_node.native.loader import native
from retrieval_node.shard import ShardSet

MAX_K = 4096


def check_search(shard_set: ShardSet, batch: SearchBatch) -> None:
    """Raises InvalidInput, IncompatibleRequest or NotFound, naming the field."""
    _check_shards(shard_set, batch)
    if batch.queries.shape[1] != shard_set.dim:
        raise InvalidInput(
            f"vectors have {batch.queries.shape[1]} components, the collection"
            f" {shard_set.snapshot.collection!r} has {shard_set.dim}",
            field="queries",
            hint="embed with the collection's own embedder",
        )
    # One pass in compiled code; the slow way finds the words for a refusal.
    module = native()
    if module is None or not module.ordinary(np.ascontiguousarray(batch.queries, np.float32)):
        check_magnitude(batch.queries, "queries")
    for name, value in (("k", batch.k), ("refine_k", batch.refine_k)):
        if value is not None and not 1 <= value <= MAX_K:
            raise InvalidInput(f"{value} is not in 1..{MAX_K}", field=name)
    if batch.refine_k is not None and batch.refine_k < batch.k:
        raise InvalidInput(f"{batch.refine_k} is less than k {batch.k}", field="refine_k")
    _check_lists(shard_set, batch)
    _check_filters(shard_set, batch)


def _check_shards(shard_set: ShardSet, batch: SearchBatch) -> None:
    if not batch.shards or len(set(batch.shards)) != len(batch.shards):
        raise InvalidInput(
            f"{list(batch.shards)} is empty or names a shard twice",
            field="shards",
            hint="name every shard to scan once",
        )
    missing = sorted(set(batch.shards) - set(shard_set.shards))
    if missing:
        raise NotFound(
            f"shard {missing[0]} of {shard_set.snapshot.collection!r} generation"
            f" {shard_set.snapshot.generation} is not loaded",
            field="shards",
            hint="call LoadShards first",
        )


def _check_lists(shard_set: ShardSet, batch: SearchBatch) -> None:
    index, lists = shard_set.index, batch.list_ids
    if batch.exact:
        _check_exact(shard_set, batch)
        return
    if index is None:
        if lists is not None:
            raise IncompatibleRequest(
                "the collection keeps exact vectors and has no lists", field="list_ids"
            )
        return
    if lists is None:
        raise InvalidInput(
            "the collection has an IVF index", field="list_ids", hint="send the lists to scan"
        )
    if batch.refine_k is not None and not shard_set.refine:
        raise IncompatibleRequest(
            "the collection stores no vectors to refine with",
            field="refine_k",
            hint="leave refine_k out",
        )
    if lists.shape[0] != len(batch.queries):
        raise InvalidInput(
            f"has {lists.shape[0]} rows for {len(batch.queries)} queries", field="list_ids"
        )
    _check_list_ids(lists, index.nlist)


def _check_list_ids(lists: I32, nlist: int) -> None:
    module = native()
    if module is not None and module.distinct_lists(np.ascontiguousarray(lists, np.int32), nlist):
        return
    if lists.size and not (lists.min() >= -1 and lists.max() < nlist):
        raise InvalidInput(f"a list id is outside -1..{nlist - 1}", field="list_ids")
    ordered = np.sort(lists, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise InvalidInput("a query names a list twice", field="list_ids")


def _check_exact(shard_set: ShardSet, batch: SearchBatch) -> None:
    for name, value in (("list_ids", batch.list_ids), ("refine_k", batch.refine_k)):
        if value is not None:
            raise InvalidInput("an exact search has none", field=name, hint=f"leave {name} out")
    for number in batch.shards:
        if any(segment.vectors is None for segment in shard_set.shards[number].segments):
            raise IncompatibleRequest(
                "the collection stores no vectors to compare with",
                field="exact",
                hint="ingest it with refinement, or search its lists",
            )


def _check_filters(shard_set: ShardSet, batch: SearchBatch) -> None:
    need = -(-shard_set.next_row_id // 8)
    for number, bitmap in enumerate(batch.filters):
        if bitmap.shape != (need,):
            raise InvalidInput(
                f"has {bitmap.size} bytes, {shard_set.next_row_id} rows need {need}",
                field=f"filters[{number}]",
                hint="build the bitmap from the same generation",
            )
    if batch.filter_of is not None and batch.filter_of.size:
        low, high = int(batch.filter_of.min()), int(batch.filter_of.max())
        if low < -1 or high >= len(batch.filters):
            raise InvalidInput(
                f"an index is outside -1..{len(batch.filters) - 1}", field="filter_of"
            )
