"""What building a large index takes: time, and memory of the builder's process."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench import common
from ragschema.errors import InternalError

_DIM = 128
_CHUNK_ROWS = 65_536
_CENTRES = 4096
_WATCH_S = 0.05


def write_vectors(path: Path, rows: int) -> None:
    """Clustered float32 [rows, 128], a chunk in memory at a time."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((_CENTRES, _DIM), dtype=np.float32)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, _DIM))
    for low in range(0, rows, _CHUNK_ROWS):
        high = min(rows, low + _CHUNK_ROWS)
        noise = rng.standard_normal((high - low, _DIM), dtype=np.float32)
        out[low:high] = centres[rng.integers(0, _CENTRES, high - low)] + np.float32(0.5) * noise
    out.flush()


def measure_build(given: argparse.Namespace) -> dict[str, Any]:
    """Builds ``given.build`` vectors; peak memory that is the process's own."""
    with tempfile.TemporaryDirectory(dir=given.data_dir) as name:
        folder = Path(name)
        common.note(f"drawing {given.build} vectors, seed 3")
        write_vectors(folder / "vectors.npy", given.build)
        (folder / "c").mkdir()
        spec = {
            "collection_dir": str(folder / "c"),
            "segment_id": "seg-000001",
            "row_start": 0,
            "vectors": str(folder / "vectors.npy"),
            "metric": "l2",
            "num_shards": 1,
            "index": {"train": {"id": "idx-000001", "m": 16, "nlist": given.nlist}},
            "threads": given.threads,
        }
        (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        return _watched(folder / "spec.json", given.build)


def _watched(spec: Path, rows: int) -> dict[str, Any]:
    started = time.perf_counter()
    output = spec.with_name("lines")
    with output.open("wb") as lines:
        command = (sys.executable, "-m", "retrieval_node", "build", str(spec))
        process = subprocess.Popen(command, stdout=lines)
        peaks: dict[str, int] = {}
        while process.poll() is None:
            own = _anonymous_bytes(process.pid)
            phase = _phase(output)
            peaks[phase] = max(peaks.get(phase, 0), own)
            time.sleep(_WATCH_S)
    last = json.loads(output.read_text(encoding="utf-8").splitlines()[-1])
    if "result" not in last:
        raise InternalError(f"the builder failed: {last}")
    peak = max(peaks.values())
    return {
        "build_rows": rows,
        "build_seconds": round(time.perf_counter() - started, 1),
        "build_peak_gib": round(peak / 2**30, 3),
        "build_peak_bytes_per_row": round(peak / rows, 1),
        "build_peak_gib_by_phase": {k: round(v / 2**30, 3) for k, v in peaks.items()},
        "nlist": last["result"]["index"]["nlist"],
    }


def _phase(output: Path) -> str:
    with output.open("rb") as lines:
        lines.seek(max(0, output.stat().st_size - 400))
        tail = lines.read().splitlines()
    for line in reversed(tail):
        try:
            return str(json.loads(line)["phase"])
        except (ValueError, KeyError, TypeError):
            continue
    return "start"


def _anonymous_bytes(pid: int) -> int:
    """Resident memory but for mapped files, whose pages the kernel can take back."""
    try:
        memory = psutil.Process(pid).memory_info()
        return int(memory.rss - memory.shared)
    except psutil.NoSuchProcess:
        return 0
