"""Whether a run fits the model and the collection, before any work is done."""

from __future__ import annotations

from coordinator.ingest.plan import EXACT_BELOW_ROWS, Wish
from ragschema.errors import IncompatibleRequest, InvalidInput
from ragschema.storage.manifest import ChunkingConfig, Manifest
from ragschema.types import Metric, ModelInfo

_SPECIAL_TOKENS = 2


def check_chunking_fits(chunking: ChunkingConfig, model: ModelInfo) -> None:
    """Raises InvalidInput when the model would not read a chunk to its end."""
    if model.max_input_tokens is None:
        return
    most = model.max_input_tokens - _SPECIAL_TOKENS
    if chunking.tokens > most:
        raise InvalidInput(
            f"chunks of {chunking.tokens} tokens are longer than {model.name} reads",
            field="chunking.tokens",
            hint=f"use at most {most}",
        )


def check_collection_fits(manifest: Manifest, metric: Metric | None, model: ModelInfo) -> None:
    """Raises IncompatibleRequest when the collection holds something else."""
    name = manifest.collection
    if metric is not None and metric is not manifest.metric:
        raise IncompatibleRequest(
            f"collection {name!r} compares by {manifest.metric}, not by {metric}",
            field="metric",
            hint="leave the metric out, or ingest into a new collection",
        )
    known = manifest.embedder
    if known is not None and known.fingerprint != model.fingerprint:
        raise IncompatibleRequest(
            f"collection {name!r} holds vectors of {known.name} ({known.fingerprint}), the LLM"
            f" node embeds with {model.name} ({model.fingerprint})",
            field="collection",
            hint=f"run the node with {known.name}, or ingest into a new collection",
        )
    if known is None and manifest.next_row_id > 0:
        raise IncompatibleRequest(
            f"collection {name!r} holds vectors of an unknown model",
            field="collection",
            hint="ingest into a new collection",
        )
    if model.dim != manifest.dim:
        raise IncompatibleRequest(
            f"collection {name!r} holds vectors of dimension {manifest.dim}, {model.name} gives"
            f" {model.dim}",
            field="collection",
            hint="ingest into a new collection",
        )


def check_wish(wish: Wish, dim: int) -> None:
    """Raises InvalidInput for index settings no data could make right."""
    if wish.m is not None and dim % wish.m:
        options = [str(m) for m in range(1, dim + 1) if dim % m == 0 and m <= 128]
        raise InvalidInput(
            f"m = {wish.m} does not divide the dimension {dim}",
            field="m",
            hint=f"use one of {', '.join(options[-8:])}",
        )


def note_about_index(manifest: Manifest) -> list[str]:
    """What a user should know about how the collection is searched."""
    if manifest.index is None:
        return [
            f"{manifest.live_rows} vectors: kept exact, as below {EXACT_BELOW_ROWS}"
            " every one of them is compared"
        ]
    index = manifest.index
    refined = ", refined with stored float16 vectors" if index.refine_factor else ""
    return [
        f"{manifest.live_rows} vectors: IVF-PQ with {index.nlist} lists, {index.m} bytes each,"
        f" {index.nprobe} lists scanned per query{refined}"
    ]
