"""How long IVF-PQ search takes on CPU hosts, on GPUs and on FPGA cards that share a database.

Every node holds a part of each list, so that all nodes answer every query; a batch is done
when the slowest node is. With even parts the nodes are equal, and what the network and
its stragglers add is counted apart (``network``).

Sources: Chameleon (arXiv 2310.09949) section 4 for the division over nodes; the roofline of
RAGO (arXiv 2503.14649) section 4 for hosts; the formula of ragrig's accelerator
(docs/numerics.md) for cards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ragschema.hardware.devices import Accelerator, Fpga, Host

#: Entries of a table per sub-quantiser: 8-bit codes.
_ENTRIES = 256
_FLOAT_BYTES = 4.0
#: Of the accelerator: an entry of its tables, and stalls of its top-K queue per result and ln
#: of its lanes.
_TABLE_ENTRY_BYTES = 2.0
_QUEUE_SHARE = 0.75


@dataclass(frozen=True)
class IvfPq:
    """An index and a search of it.

    Attributes:
        vectors: in all.
        dims: of a vector.
        code_bytes: per vector, one per sub-quantiser.
        nlist: lists.
        scan_share: of the vectors that a query scans.
        results: k.
    """

    vectors: float
    dims: int
    code_bytes: float
    nlist: int
    scan_share: float
    results: int = 10

    @property
    def nprobe(self) -> int:
        """Lists a query scans, at equal lengths."""
        return max(1, min(self.nlist, round(self.scan_share * self.nlist)))

    @property
    def stored_bytes(self) -> float:
        """Codes, and an id of 4 bytes each."""
        return self.vectors * (self.code_bytes + 4.0)

    @property
    def scanned_bytes(self) -> float:
        """Codes that a query reads."""
        return self.vectors * self.scan_share * self.code_bytes

    @property
    def coarse_flops(self) -> float:
        """Comparing a query with all centroids."""
        return 2.0 * self.nlist * self.dims

    @property
    def table_flops(self) -> float:
        """Tables of a query, one per probed list."""
        return 3.0 * self.nprobe * _ENTRIES * self.dims

    @property
    def centroid_bytes(self) -> float:
        return self.nlist * self.dims * _FLOAT_BYTES


def ivfpq_s(
    index: IvfPq, node: Host | Accelerator | Fpga, nodes: int, queries: int
) -> float | None:
    """Seconds for a batch of queries on all nodes; None: the index does not fit them."""
    if index.stored_bytes > nodes * node.memory_bytes:
        return None
    if isinstance(node, Host):
        return _on_host(index, node, nodes, queries)
    if isinstance(node, Fpga):
        return _on_fpga(index, node, nodes, queries)
    return _on_gpu(index, node, nodes, queries)


def _on_host(index: IvfPq, host: Host, nodes: int, queries: int) -> float:
    """Batches smaller than the cores split a query's lists over them."""
    mine = queries * index.scanned_bytes / nodes
    by_cores = mine / (host.cores * host.scan_bytes_per_s)
    scan_s = max(by_cores, mine / (host.memory_bytes_per_s * host.memory_share))
    if host.core_flops_per_s is None:
        return scan_s
    flops = queries * (index.coarse_flops + index.table_flops)
    return scan_s + max(
        flops / (host.cores * host.core_flops_per_s),
        index.centroid_bytes / (host.memory_bytes_per_s * host.memory_share),
    )


def _on_gpu(index: IvfPq, gpu: Accelerator, nodes: int, queries: int) -> float:
    assert gpu.scan_share is not None, "pools refuse accelerators that do not scan"
    bandwidth = gpu.memory_bytes_per_s
    scan_s = queries * index.scanned_bytes / nodes / (bandwidth * gpu.scan_share)
    flops = queries * (index.coarse_flops + index.table_flops)
    other_s = max(
        flops / (gpu.flops_per_s * gpu.compute_share),
        index.centroid_bytes / (bandwidth * gpu.memory_share),
    )
    return gpu.launch_s + other_s + scan_s


def _on_fpga(index: IvfPq, card: Fpga, nodes: int, queries: int) -> float:
    """A table per list; lists that are shorter than a table takes wait for it, but the last.

    The coarse search is the coordinator's or a model node's, and not counted here.
    """
    lanes = card.channels * card.beat_bytes / index.code_bytes
    beats = min(
        1.0, card.memory_share * card.channel_bytes_per_s / (card.beat_bytes * card.clock_hz)
    )
    codes = index.vectors * index.scan_share / index.nprobe / nodes
    own = math.ceil(math.ceil(codes / lanes) / beats) + card.gap_cycles
    table = card.table_cycles * max(1.0, _TABLE_ENTRY_BYTES * index.code_bytes / card.beat_bytes)
    # Handing out results, stalls of their queue, writing them.
    queue = index.results * (1.0 + _QUEUE_SHARE * math.log(max(1.0, lanes)) + 9 / 8)
    cycles = table + (index.nprobe - 1) * max(own, table) + own + card.settle_cycles + queue
    return queries * cycles / card.clock_hz
