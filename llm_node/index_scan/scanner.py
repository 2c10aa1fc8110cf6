"""Role index_scan: keeps the centroids that are asked for, one scan at a time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch

from llm_node.device.scheduler import Lane, once
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
        lane: bounds the calls that may wait, and runs them in order.

    Raises:
        InvalidInput: there is no such device.
    """

    def __init__(self, data_dir: Path, device: str, lane: Lane) -> None:
        self._data_dir = data_dir
        self._device = _device(device)
        self.lane = lane
        self._loaded: OrderedDict[IndexId, CentroidScan] = OrderedDict()
        self.info = ModelInfo(Role.INDEX_SCAN, f"index_scan:{device}", "index-scan-1", None, None)

    async def scan(self, index: IndexId, queries: F32, nprobe: int) -> Scanned:
        """Nearest lists of each query.

        Raises:
            NotFound: that index is not the collection's committed one.
            CorruptData: its file is not what was written.
            InvalidInput: the queries do not fit it.
            Overloaded: too many calls wait already.
        """
        done = await self.lane.run(once(self._scan, index, queries, nprobe))
        return Scanned(done.value, done.waited_us, done.ran_us)

    def _scan(self, index: IndexId, queries: F32, nprobe: int) -> I32:
        """The device's thread."""
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


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInput(f"there is no device {name!r}", field="device", hint="use device=cpu")
    return device
