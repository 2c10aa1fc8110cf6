"""Builds what `bench.retrieval` searches and keeps it under build/bench.

Run by the benchmark in a process of its own, with all cores; searching then
happens in a process in which every library has one thread. Every builder says
where its index lies and does nothing when it is there already.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import note
from bench.datasets import Dataset, ground_truth
from bench.retrieval_plan import Plan, ScannBuild, quick
from ragschema.errors import Unavailable
from ragschema.procs import calm_thread_pools
from ragschema.types import F32


def peer(module: str) -> Any:
    """An optional library; Unavailable when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise Unavailable(f"{name} is not installed", hint="make bench-peers") from error


def ivfpq(plan: Plan, data: Dataset) -> Path:
    """faiss IndexIVFPQ: the codes that faiss and ragrig both search."""
    import faiss

    def build(path: Path) -> None:
        coarse = faiss.IndexFlatL2(plan.dim)
        index = faiss.IndexIVFPQ(coarse, plan.dim, plan.nlist, plan.m, 8)
        index.train(_sample(plan, data))
        index.add(data.base)
        faiss.write_index(index, str(path))

    return _once(plan.folder(data) / "ivfpq.faiss", build)


def fastscan(plan: Plan, data: Dataset, m: int) -> Path:
    """faiss IndexIVFPQFastScan with m 4-bit codes, over the same lists; no vectors."""
    import faiss

    def build(path: Path) -> None:
        trained: Any = faiss.read_index(str(ivfpq(plan, data)))  # owns the coarse quantiser
        index = faiss.IndexIVFPQFastScan(trained.quantizer, plan.dim, plan.nlist, m, 4)
        index.train(_sample(plan, data))
        index.add(data.base)
        faiss.write_index(index, str(path))

    return _once(plan.folder(data) / f"fastscan-{m}x4.faiss", build)


def scann(plan: Plan, data: Dataset, choice: ScannBuild) -> Path:
    """A ScaNN tree with 4-bit codes of two dimensions each and float32 reordering."""
    ops = peer("scann").scann_ops_pybind

    def build(path: Path) -> None:
        builder = ops.builder(data.base, plan.k, "squared_l2")
        tree = builder.set_n_training_threads(_cores()).tree(
            num_leaves=choice.leaves,
            num_leaves_to_search=20,
            training_sample_size=plan.train_rows,
        )
        hashed = tree.score_ah(2, anisotropic_quantization_threshold=choice.threshold)
        path.mkdir()
        hashed.reorder(100).build().serialize(str(path), relative_path=True)

    return _once(plan.folder(data) / choice.name, build)


def graph(plan: Plan, data: Dataset) -> Path:
    """An hnswlib graph with its vectors."""
    hnswlib = peer("hnswlib")

    def build(path: Path) -> None:
        index = hnswlib.Index("l2", plan.dim)
        index.init_index(plan.rows, plan.graph_degree, plan.graph_build_ef, plan.seed)
        index.add_items(data.base, num_threads=_cores())
        index.save_index(str(path))

    name = f"hnswlib-{plan.graph_degree}-{plan.graph_build_ef}.bin"
    return _once(plan.folder(data) / name, build)


def build_all(plan: Plan, data: Dataset, kinds: set[str]) -> None:
    """Builds what ``kinds`` of contestants need; a missing peer is only noted."""
    jobs: list[tuple[str, Callable[[], object]]] = [
        ("ragrig", lambda: ivfpq(plan, data)),
        ("ivfpq", lambda: ivfpq(plan, data)),
        ("fastscan", lambda: [fastscan(plan, data, m) for m in (2 * plan.m, 4 * plan.m)]),
        ("scann", lambda: [scann(plan, data, choice) for choice in plan.scann]),
        ("hnswlib", lambda: graph(plan, data)),
    ]
    for kind, job in jobs:
        if kind not in kinds:
            continue
        try:
            job()
        except Unavailable as error:
            note(f"{kind}: {error.message}")


def _once(path: Path, build: Callable[[Path], None]) -> Path:
    """Builds beside ``path`` and renames, so that a killed run leaves no half index."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    started_s = time.perf_counter()
    build(draft)
    os.replace(draft, path)
    note(f"built {path.name} in {time.perf_counter() - started_s:.1f} s")
    return path


def _sample(plan: Plan, data: Dataset) -> F32:
    rng = np.random.default_rng(plan.seed)
    rows = rng.choice(plan.rows, size=min(plan.train_rows, plan.rows), replace=False)
    return data.base[np.sort(rows)]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("kinds", nargs="+")
    given = parser.parse_args()
    plan = quick() if given.quick else Plan()
    data = plan.dataset()
    ground_truth(data, plan.k)
    build_all(plan, data, set(given.kinds))


if __name__ == "__main__":
    calm_thread_pools(_cores())
    main()
