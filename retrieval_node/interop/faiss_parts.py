"""A faiss index taken apart: what of it ragrig can search, checked.

Understood is an IndexIVFPQ of 8 bits, bare or inside an IndexPreTransform of
rotations, inside an IndexRefine of stored vectors, inside an IndexIDMap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import faiss
import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData, InvalidInput
from ragschema.types import F32, I64, U8, Metric
from retrieval_node.fixedpoint import CODES, MAX_ABS
from retrieval_node.interop.faiss_chain import folded

SMALLEST_M, LARGEST_M = 4, 128
LARGEST_DIM = 4096
_LARGEST_NLIST = 1 << 20
_MOST_ROWS = (1 << 32) - 1
# faiss adds to its classes when it is imported; its type stubs know nothing of that.
_faiss: Any = faiss
_SUPPORTED = (
    "import takes IndexIVFPQ with 8 bits and 4 to 128 bytes per code, L2 or inner product, at most"
    " 4096 dimensions; around it IndexPreTransform of rotations (OPQ, PCA, random), IndexRefineFlat"
    " or IndexRefine with SQfp16, and IndexIDMap"
)


def refuse(what: str) -> NoReturn:
    """Raises the error for an index of a kind we do not take."""
    raise InvalidInput(what, field="file", hint=_SUPPORTED)


def damaged(what: str) -> NoReturn:
    """Raises the error for an index that contradicts itself."""
    raise CorruptData(
        f"the index is damaged: {what}", field="file", hint="write it again with faiss.write_index"
    )


@dataclass(frozen=True, eq=False)
class Layers:
    """The shells of an index.

    Attributes:
        id_map: int64 [n], the id of each inner id 0 .. n - 1, or None.
        refine: the index of stored vectors, or None.
        refine_factor: candidates it rescores as a multiple of k.
        transforms: applied to queries, first to last.
        ivf: the IndexIVFPQ.
        owner: keeps the faiss objects alive.
    """

    id_map: I64 | None
    refine: Any | None
    refine_factor: int
    transforms: tuple[Any, ...]
    ivf: Any
    owner: Any


def peel(index: Any) -> Layers:
    """Takes the shells off, in the one order that faiss's own factory puts them on.

    Raises:
        InvalidInput: a kind of index that is not understood, naming it.
    """
    id_map, refine, factor = None, None, 1
    transforms: tuple[Any, ...] = ()
    inner = index
    if type(inner) in (_faiss.IndexIDMap, _faiss.IndexIDMap2):
        id_map = _faiss.vector_to_array(inner.id_map).astype(np.int64)
        inner = _inside(inner.index)
    if type(inner) in (_faiss.IndexRefine, _faiss.IndexRefineFlat):
        refine, factor = _inside(inner.refine_index), _factor(inner)
        inner = _inside(inner.base_index)
    if type(inner) is _faiss.IndexPreTransform:
        chain = inner.chain
        transforms = tuple(
            _faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())
        )
        inner = _inside(inner.index)
    if type(inner) is not _faiss.IndexIVFPQ:
        where = "" if inner is index else f" inside {type(index).__name__}"
        refuse(f"the file holds {type(inner).__name__}{where}")
    return Layers(id_map, refine, factor, transforms, inner, index)


def _inside(index: Any) -> Any:
    if index is None:
        damaged("an inner index is missing")
    return _faiss.downcast_index(index)


def _factor(refine: Any) -> int:
    """faiss takes int(k * k_factor) candidates; ours is a whole multiple, no smaller."""
    factor = float(refine.k_factor)
    if not 1.0 <= factor <= 1024.0:
        refuse(f"its refinement has k_factor {factor:g}")
    return int(np.ceil(factor))


@dataclass(frozen=True, eq=False)
class FaissParts:
    """An index as arrays, rows numbered by ascending faiss id.

    Attributes:
        centroids: float32 [nlist, dim]; codebooks: float32 [m, 256, dim / m].
        rotation: float32 [dim, input dim] or None; offset: float32 [dim] or None.
        ids: int64 [n], the faiss id of each row, ascending.
        vectors: float32 or float16 [n, input dim] by row, to refine with, or None.
    """

    metric: Metric
    input_dim: int
    centroids: F32
    codebooks: F32
    residual: bool
    rotation: F32 | None
    offset: F32 | None
    nprobe: int
    refine_factor: int | None
    ids: I64
    vectors: NDArray[Any] | None
    notes: tuple[str, ...]
    _layers: Layers

    @property
    def nlist(self) -> int:
        return int(self.centroids.shape[0])

    @property
    def m(self) -> int:
        return int(self.codebooks.shape[0])

    def list_sizes(self) -> I64:
        """Rows of each list: int64 [nlist]."""
        return _list_sizes(self._layers.ivf)

    def list_rows(self, number: int) -> tuple[I64, U8]:
        """One list by ascending row: rows int64 [n], codes uint8 [n, m], both copies."""
        inner, codes = _list(self._layers.ivf, number)
        rows = np.searchsorted(self.ids, _outer(inner, self._layers.id_map))
        order = np.argsort(rows)
        return rows[order].astype(np.int64), codes[order]


def take_apart(index: Any) -> FaissParts:
    """Checks an opened index and makes arrays of it.

    Raises:
        InvalidInput: it is of a kind that is not understood, naming what was found.
        CorruptData: its parts contradict each other.
    """
    layers = peel(index)
    ivf = layers.ivf
    metric = _checked(index, ivf)
    rotation, offset = folded(layers.transforms, index.d, ivf.d)
    centroids, notes = _centroids(ivf)
    codebooks = _faiss.vector_to_array(ivf.pq.centroids)
    if codebooks.size != CODES * ivf.d:
        damaged(f"{codebooks.size} numbers of codebooks, expected {CODES * ivf.d}")
    ids = _ids(ivf, layers.id_map)
    parts = FaissParts(
        metric=metric,
        input_dim=int(index.d),
        centroids=centroids,
        codebooks=codebooks.reshape(ivf.pq.M, CODES, -1),
        residual=bool(ivf.by_residual),
        rotation=rotation,
        offset=offset,
        nprobe=max(1, min(int(ivf.nprobe), int(ivf.nlist))),
        refine_factor=None if layers.refine is None else layers.refine_factor,
        ids=ids,
        vectors=_vectors(layers, len(ids), index.d, metric),
        notes=notes,
        _layers=layers,
    )
    _check_numbers(parts)
    return parts


def _checked(index: Any, ivf: Any) -> Metric:
    """The metric; shape and state are such as we take."""
    if not (index.is_trained and ivf.is_trained):
        refuse("the index is not trained")
    if ivf.pq.nbits != 8:
        refuse(f"the file holds IndexIVFPQ with {ivf.pq.nbits} bits per sub-code")
    if not SMALLEST_M <= ivf.pq.M <= LARGEST_M:
        refuse(f"the file holds IndexIVFPQ with {ivf.pq.M} bytes per code")
    if ivf.polysemous_ht:
        refuse("the file holds IndexIVFPQ with a polysemous filter")
    if not (1 <= ivf.d <= LARGEST_DIM and 1 <= index.d <= LARGEST_DIM):
        refuse(f"the file holds vectors of {max(ivf.d, index.d)} dimensions")
    if not 1 <= ivf.nlist <= _LARGEST_NLIST:
        refuse(f"the file holds IndexIVFPQ with {ivf.nlist} lists")
    if ivf.d % ivf.pq.M or ivf.pq.d != ivf.d or ivf.code_size != ivf.pq.M:
        damaged(f"{ivf.pq.M} sub-codes of {ivf.pq.d} dimensions in an index of {ivf.d}")
    metrics = {_faiss.METRIC_L2: Metric.L2, _faiss.METRIC_INNER_PRODUCT: Metric.IP}
    if ivf.metric_type not in metrics:
        refuse(f"the index compares by faiss metric {ivf.metric_type}")
    if not 0 < ivf.ntotal <= _MOST_ROWS:
        refuse(f"the index holds {ivf.ntotal} vectors")
    return metrics[ivf.metric_type]


def _centroids(ivf: Any) -> tuple[F32, tuple[str, ...]]:
    quantizer = _faiss.downcast_index(ivf.quantizer) if ivf.quantizer is not None else None
    if quantizer is None or quantizer.ntotal != ivf.nlist or quantizer.d != ivf.d:
        damaged(f"its coarse quantizer does not hold {ivf.nlist} centroids of {ivf.d} dimensions")
    notes: tuple[str, ...] = ()
    if type(quantizer) is _faiss.IndexHNSWFlat:
        notes = ("its lists were chosen through an HNSW graph; here they are chosen exactly",)
        flat = _faiss.downcast_index(quantizer.storage)
    else:
        flat = quantizer
    if type(flat) not in (_faiss.IndexFlat, _faiss.IndexFlatL2, _faiss.IndexFlatIP):
        refuse(f"its coarse quantizer is {type(quantizer).__name__}, not a flat one")
    if quantizer.metric_type != ivf.metric_type:
        refuse("its coarse quantizer compares by another metric than the index")
    if flat.ntotal != ivf.nlist or flat.codes.size() != 4 * ivf.nlist * ivf.d:
        damaged("its centroids are cut short")
    return _faiss.rev_swig_ptr(flat.get_xb(), ivf.nlist * ivf.d).reshape(
        ivf.nlist, -1
    ).copy(), notes


def _list_sizes(ivf: Any) -> I64:
    lists = ivf.invlists
    return np.array([lists.list_size(i) for i in range(ivf.nlist)], dtype=np.int64)


def _list(ivf: Any, number: int) -> tuple[I64, U8]:
    """Inner ids and codes of a list, copied out of the file."""
    size, m = ivf.invlists.list_size(number), ivf.pq.M
    if not size:
        return np.zeros(0, np.int64), np.zeros((0, m), np.uint8)
    ids = _faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size).copy()
    codes = _faiss.rev_swig_ptr(ivf.invlists.get_codes(number), size * m).reshape(size, m).copy()
    return ids.astype(np.int64), codes


def _outer(inner: I64, id_map: I64 | None) -> I64:
    if id_map is None:
        return inner
    if len(inner) and not (inner.min() >= 0 and inner.max() < len(id_map)):
        damaged("an id map is shorter than the ids it maps")
    return id_map[inner]


def _ids(ivf: Any, id_map: I64 | None) -> I64:
    """Every id, ascending; CorruptData or InvalidInput when they cannot name rows."""
    if ivf.invlists is None or ivf.invlists.nlist != ivf.nlist:
        damaged("its inverted lists are not those of its centroids")
    if ivf.invlists.code_size != ivf.pq.M:
        damaged(f"its lists hold codes of {ivf.invlists.code_size} bytes, expected {ivf.pq.M}")
    sizes = _list_sizes(ivf)
    if int(sizes.sum()) != ivf.ntotal or (sizes < 0).any():
        damaged(f"its lists hold {int(sizes.sum())} codes, expected {ivf.ntotal}")
    ids = np.empty(ivf.ntotal, dtype=np.int64)
    at = 0
    for number in np.flatnonzero(sizes).tolist():
        size = int(sizes[number])
        inner = _faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
        ids[at : at + size] = _outer(inner.astype(np.int64), id_map)
        at += size
    ids.sort()
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        refuse(f"two vectors have the id {ids[twice[0]]}")
    return ids


def _vectors(layers: Layers, rows: int, dim: int, metric: Metric) -> NDArray[Any] | None:
    """The vectors of an IndexRefine, by row; not copied."""
    if layers.refine is None:
        return None
    store = layers.refine
    kind = type(store)
    half = _faiss.ScalarQuantizer.QT_fp16
    if kind in (_faiss.IndexFlat, _faiss.IndexFlatL2, _faiss.IndexFlatIP):
        dtype: np.dtype[Any] = np.dtype(np.float32)
    elif kind is _faiss.IndexScalarQuantizer and store.sq.qtype == half:
        dtype = np.dtype(np.float16)
    else:
        refuse(f"its refinement is by {kind.__name__}")
    if store.metric_type != layers.ivf.metric_type:
        refuse("its refinement compares by another metric than the index")
    if store.d != dim or store.ntotal != rows or store.codes.size() != rows * dim * dtype.itemsize:
        damaged(f"its refinement does not hold {rows} vectors of {dim} dimensions")
    inner = np.sort(np.concatenate([_list(layers.ivf, i)[0] for i in range(layers.ivf.nlist)]))
    if not np.array_equal(inner, np.arange(rows)):
        refuse(
            "the ids below its refinement are not 0 .. n - 1: nothing tells which vector is whose"
        )
    raw = _faiss.rev_swig_ptr(store.codes.data(), store.codes.size())
    vectors: NDArray[Any] = raw.view(dtype).reshape(rows, dim)
    if layers.id_map is None:
        return vectors
    by_id: NDArray[Any] = vectors[np.argsort(layers.id_map[:rows], kind="stable")]
    return by_id


def _check_numbers(parts: FaissParts) -> None:
    named = {
        "centroids": parts.centroids,
        "codebooks": parts.codebooks,
        "rotation": parts.rotation,
        "offset": parts.offset,
    }
    for name, values in named.items():
        if values is not None and not float(np.abs(values).max()) <= MAX_ABS:
            damaged(f"its {name} hold a component that is no ordinary number")
