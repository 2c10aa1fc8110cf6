"""Role index_scan: keeps the centroids that are asked for, one scan at a time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from llm_node.admission import Admission
from llm_node.index_scan.centroids import CentroidScan
from llm_node.index_scan.index_id import IndexId
from ragschema.errors import InvalidInput, NotFound
from ragschema.storage.index_arrays import read_index_arrays
from ragschema.storage.manifest import collection_dir, read_manifest
from ragschema.types import F32, I32, ModelInfo, Role

_MOST_INDEXES = 8


@dataclass(frozen=True)
class Scanned:
    """int32 [n, min(nprobe, nlist)], nearest lists first."""

    lists: I32
    queue_us: int
    compute_us: int


class IndexScanner:
    """Reads indexes below ``data_dir`` when they are first asked for.

    Args:
        data_dir: the rig's, as on the coordinator's machine.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        max_waiting: calls that may wait; more raise Overloaded.

    Raises:
        InvalidInput: there is no such device.
    """

    def __init__(self, data_dir: Path, device: str, max_waiting: int) -> None:
        self._data_dir = data_dir
        self._device = _device(device)
        self._calls = Admission("index scans", 1, max_waiting)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="index-scan")
        self._loaded: OrderedDict[IndexId, CentroidScan] = OrderedDict()
        self.info = ModelInfo(Role.INDEX_SCAN, f"index_scan:{device}", "index-scan-1", None, None)

    @property
    def running(self) -> int:
        return self._calls.running

    @property
    def waiting(self) -> int:
        return self._calls.waiting

    async def scan(self, index: IndexId, queries: F32, nprobe: int) -> Scanned:
        """Nearest lists of each query.

        Raises:
            NotFound: that index is not the collection's committed one.
            CorruptData: its file is not what was written.
            InvalidInput: the queries do not fit it.
            Overloaded: too many calls wait already.
        """
        loop = asyncio.get_running_loop()
        async with self._calls.slot() as queue_us:
            started_s = time.monotonic()
            lists = await loop.run_in_executor(self._worker, self._scan, index, queries, nprobe)
            return Scanned(lists, queue_us, int((time.monotonic() - started_s) * 1e6))

    def _scan(self, index: IndexId, queries: F32, nprobe: int) -> I32:
        """Worker thread."""
        found = self._loaded.get(index)
        if found is None:
            found = self._loaded[index] = self._load(index)
            if len(self._loaded) > _MOST_INDEXES:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(index)
        return found.nearest(queries, nprobe)

    def _load(self, index: IndexId) -> CentroidScan:
        directory = collection_dir(self._data_dir, index.collection)
        manifest = read_manifest(directory)
        ref = manifest.index
        if ref is None or (ref.file.path, ref.file.crc32) != (index.path, index.crc32):
            raise NotFound(
                f"{index.path} is not the index of {index.collection!r} here",
                field="index",
                hint="the node's data directory must hold what the coordinator serves",
            )
        arrays = read_index_arrays(directory, manifest)
        assert arrays is not None, "the manifest names an index"
        return CentroidScan(arrays, manifest.metric, self._device)

    def close(self) -> None:
        """Lets the running scan end."""
        self._worker.shutdown(wait=False, cancel_futures=True)


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInput(f"there is no device {name!r}", field="device", hint="use device=cpu")
    return device
