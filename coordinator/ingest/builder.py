"""Runs the index builder, a process of the retrieval node's package."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from coordinator.ingest.node_command import Progress, run_node_command
from ragschema.errors import InternalError
from ragschema.storage.manifest import CurvePoint
from ragschema.types import Metric

_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class TrainRequest:
    """A new index; None: the builder chooses from the data."""

    id: str
    nlist: int | None
    m: int | None
    seed: int
    refine: bool


@dataclass(frozen=True)
class BuildRequest:
    """One segment.

    Attributes:
        vectors: float32 [n, dim] .npy file, unit length if the metric is cosine.
        existing: index file relative to the collection, to encode with.
        residual: how the existing index encodes.
        train: the index to train instead; both None: exact vectors.
        refine: store vectors beside the codes.
    """

    collection_dir: Path
    segment_id: str
    row_start: int
    vectors: Path
    metric: Metric
    num_shards: int
    existing: str | None = None
    residual: bool = True
    train: TrainRequest | None = None
    refine: bool = False

    def write(self, path: Path) -> None:
        """Writes the builder's SPEC.json."""
        index: dict[str, object] | None = None
        if self.existing is not None:
            index = {"existing": self.existing, "residual": self.residual}
        elif self.train is not None:
            index = {"train": asdict(self.train)}
        body = {
            "collection_dir": str(self.collection_dir),
            "segment_id": self.segment_id,
            "row_start": self.row_start,
            "vectors": str(self.vectors),
            "metric": str(self.metric),
            "num_shards": self.num_shards,
            "index": index,
            "refine": self.refine,
        }
        path.write_text(json.dumps(body, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class BuiltIndex:
    """A trained index as the builder reports it; ``path`` relative to the collection."""

    path: str
    nlist: Annotated[int, Field(ge=1)]
    m: Annotated[int, Field(ge=1)]
    nprobe: Annotated[int, Field(ge=1)]
    refine_factor: Annotated[int, Field(ge=1)] | None
    residual: bool = True
    rotated: bool = False
    recall_at_10: float | None = None
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True)
class BuildResult:
    """Written files, by path relative to the collection."""

    index: BuiltIndex | None
    shards: tuple[str, ...]
    rows_per_shard: tuple[int, ...]


async def run_builder(spec_path: Path, progress: Progress) -> BuildResult:
    """Builds the segment a written request describes; cancelling kills the process.

    Raises:
        RagrigError: the builder's own error, or InternalError when it died.
    """
    end = await run_node_command("build", spec_path, progress, max_line_bytes=_MAX_LINE_BYTES)
    if end.code != 0 or "result" not in end.last:
        raise InternalError(
            f"the index builder ended with code {end.code} and no result",
            hint="it may have run out of memory; ingest again to go on",
        )
    return _result(end.last["result"])


def _result(body: object) -> BuildResult:
    try:
        return TypeAdapter(BuildResult).validate_json(json.dumps(body))
    except ValidationError as error:
        raise InternalError(f"the index builder's result is malformed: {body}") from error
