"""What the index builder is asked for: a small JSON file, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput
from ragschema.types import Metric
from retrieval_node.spec_file import read_spec

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class TrainSpec:
    """A new index.

    Attributes:
        id: names ``index/<id>.rag``.
        nlist: IVF lists, None to choose from the data.
        m: bytes per code, a divisor of the dimension; None to choose.
        refine: store vectors and rescore with them.
        rotate: learn a rotation (OPQ) that makes codes more faithful.
        residual: codes are of a vector minus its list's centroid.
        measure: measure the index's recall and choose nprobe and the refine
            factor by it; false: by rule of thumb.
    """

    __pydantic_config__ = _STRICT
    id: Annotated[str, Field(pattern=r"^idx-[0-9]{6}$")]
    nlist: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    m: Annotated[int, Field(ge=1, le=4096)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    refine: bool = True
    rotate: bool = False
    residual: bool = True
    measure: bool = True


@dataclass(frozen=True)
class IndexChoice:
    """Exactly one: an index file of the collection, or a new one to train.

    Attributes:
        residual: how the existing index encodes; for a new one ``train`` says so.
    """

    __pydantic_config__ = _STRICT
    existing: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]+$")] | None = None
    train: TrainSpec | None = None
    residual: bool = True


@dataclass(frozen=True)
class BuildSpec:
    """One segment to build.

    Attributes:
        vectors: path of a float32 [n, dim] .npy file, unit length if cosine.
        index: None for exact vectors.
        refine: store vectors beside the codes of an existing index; for a new
            one ``index.train.refine`` decides.
        vector_type: of stored vectors. None: float32 in exact segments; beside
            codes float16 where it holds the vectors to three digits, else float32.
        threads: that encode; None: one per core this process may use.
    """

    __pydantic_config__ = _STRICT
    collection_dir: str
    segment_id: Annotated[str, Field(pattern=r"^seg-[0-9]{6}$")]
    row_start: Annotated[int, Field(ge=0, lt=1 << 62)]
    vectors: str
    metric: Metric
    num_shards: Annotated[int, Field(ge=1, le=4096)]
    index: IndexChoice | None = None
    refine: bool = False
    vector_type: Literal["float16", "float32"] | None = None
    threads: Annotated[int, Field(ge=1, le=256)] | None = None


def load_spec(path: Path) -> BuildSpec:
    """Reads a spec file.

    Raises:
        NotFound: there is no such file.
        InvalidInput: naming the key that is wrong.
    """
    spec = read_spec(path, BuildSpec)
    if spec.index is not None and (spec.index.existing is None) == (spec.index.train is None):
        raise InvalidInput(
            f"{path}: needs exactly one of existing and train",
            field="index",
            hint="leave index null for exact vectors",
        )
    return spec
