"""What the fixed-point contract costs in recall, against float tables.

The same PQ codes and lists are scanned with 8-bit tables, 16-bit tables and, by
faiss, with float tables; no refinement. Squared distances are also scanned with one
table per query (mode B, ``.._one_table``) instead of one per list. Tables are made by
the host of floats, and as a card makes them, of integers (``.._card``).
Run ``python -m bench.numerics``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import common
from ragschema.procs import calm_thread_pools
from ragschema.types import F32, I64, Metric

_K, _DEEP = 10, 100


def _clustered(rows: int, dim: int, seed: int) -> F32:
    """Clusters with a decaying spectrum: uniform vectors have no neighbours to find."""
    rng = np.random.default_rng(seed)
    scale = 1.0 / np.sqrt(1.0 + np.arange(dim))
    centres = rng.normal(size=(rows // 100 + 1, dim)) * scale
    vectors = centres[rng.integers(0, len(centres), rows)]
    vectors = vectors + 0.5 * rng.normal(size=(rows, dim)) * scale
    return np.asarray(vectors, dtype=np.float32)


def _unit(vectors: F32) -> F32:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def _split(given: argparse.Namespace) -> tuple[F32, F32]:
    """Stored vectors and queries that are not among them."""
    if given.vectors is not None:
        everything = np.load(given.vectors, allow_pickle=False).astype(np.float32)
    else:
        everything = _clustered(given.rows, given.dim, given.seed)
    if given.metric is Metric.COSINE:
        everything = _unit(everything)
    order = np.random.default_rng(given.seed).permutation(len(everything))
    count = min(given.queries, len(everything) // 5)
    return everything[np.sort(order[count:])], everything[order[:count]]


def _truth(stored: F32, queries: F32, metric: Metric) -> I64:
    keys = -2.0 * queries @ stored.T
    if metric is Metric.L2:
        keys = keys + np.einsum("ij,ij->i", stored, stored)[None, :]
    return np.argsort(keys, axis=1, kind="stable")[:, :_K]


def _shared(found: I64, wanted: I64) -> float:
    """Mean share of wanted rows that were found."""
    pairs = zip(found.tolist(), wanted.tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


def make_collection(directory: Path, stored: F32, given: argparse.Namespace) -> None:
    from ragschema.storage import manifest as m
    from retrieval_node.build import build
    from retrieval_node.build_spec import BuildSpec, IndexChoice, TrainSpec

    source = directory.parent / "vectors.npy"
    np.save(source, stored)
    directory.mkdir()
    train = TrainSpec("idx-000001", nlist=given.nlist, m=given.m, seed=given.seed, refine=False)
    spec = BuildSpec(
        collection_dir=str(directory),
        segment_id="seg-000001",
        row_start=0,
        vectors=str(source),
        metric=given.metric,
        num_shards=1,
        index=IndexChoice(train=train),
    )
    result = build(spec, lambda *_: None)
    assert result.index is not None, "a new index was asked for"
    texts = directory / "segments" / "seg-000001" / "texts.sqlite"
    texts.write_bytes(b"")
    index = m.IndexRef(
        file=m.file_ref(directory, directory / result.index.path),
        nlist=result.index.nlist,
        m=result.index.m,
        nprobe=result.index.nprobe,
        refine_factor=None,
    )
    shard = m.file_ref(directory, directory / result.shards[0])
    segment = m.SegmentRef("seg-000001", 0, len(stored), (shard,), m.file_ref(directory, texts))
    manifest = m.Manifest(
        format=2, collection=directory.name, generation=1, created_at="", metric=given.metric,
        dim=stored.shape[1], num_shards=1, embedder=None, chunking=m.ChunkingConfig(),
        index=index, segments=(segment,), tombstones=None, next_row_id=len(stored),
        live_rows=len(stored), live_documents=1,
    )  # fmt: skip
    m.commit_manifest(directory, manifest)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Recall@10 against exact search, and overlap with the float scan's top 100."""
    from retrieval_node.backends.base import Backend
    from retrieval_node.backends.faiss_backend import FaissBackend
    from retrieval_node.backends.fpga.backend import FpgaBackend
    from retrieval_node.backends.fpga.devices import open_device
    from retrieval_node.fixedpoint import TableMode, TablesBy
    from retrieval_node.local import LocalSearcher

    stored, queries = _split(given)
    truth = _truth(stored, queries, given.metric)
    result: dict[str, Any] = {"metric": given.metric.value, "vectors": len(stored)}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "numerics"
        make_collection(directory, stored, given)
        backends: dict[str, Backend] = {"float": FaissBackend()}
        for bits in (16, 8):
            backends[f"{bits}bit"] = FpgaBackend(open_device("emulator", 1, bits))
            backends[f"{bits}bit_card"] = FpgaBackend(
                open_device("emulator", 1, bits), tables=TablesBy.CARD
            )
            if given.metric is Metric.L2:
                backends[f"{bits}bit_one_table"] = FpgaBackend(
                    open_device("emulator", 1, bits), mode=TableMode.PER_QUERY
                )
        deep: dict[str, I64] = {}
        for name, backend in backends.items():
            searcher = LocalSearcher(directory, backend)
            found = searcher.search(searcher.batch(queries, _DEEP, given.nprobe))
            deep[name] = found.row_ids
            result[f"recall_at_10_{name}"] = round(_shared(found.row_ids[:, :_K], truth), 4)
            searcher.close()
        index = searcher.manifest.index
        assert index is not None, "the collection was built with one"
    for name in [name for name in backends if name != "float"]:
        result[f"overlap_at_100_{name}"] = round(_shared(deep[name], deep["float"]), 5)
    return result | {
        "dim": stored.shape[1],
        "queries": len(queries),
        "nlist": index.nlist,
        "m": index.m,
        "nprobe": given.nprobe or index.nprobe,
        "seed": given.seed,
    }


def main() -> None:
    parser = common.options(__doc__ or "")
    parser.add_argument("--vectors", type=Path, help="float32 .npy file to use instead")
    parser.add_argument("--metric", type=Metric, choices=list(Metric), default=Metric.L2)
    parser.add_argument("--rows", type=int, default=50_000, help="made-up vectors")
    parser.add_argument("--dim", type=int, default=128, help="their dimension")
    parser.add_argument("--queries", type=int, default=500, help="held out of the vectors")
    parser.add_argument("--nlist", type=int, help="IVF lists; chosen from the data if left out")
    parser.add_argument("--m", type=int, default=16, help="bytes per code")
    parser.add_argument("--nprobe", type=int, default=32, help="lists to scan")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    calm_thread_pools(1)
    common.emit(measure(given) | {"machine": common.machine()}, given)


if __name__ == "__main__":
    main()
