"""How long tree and exact vector search take on servers that share a database evenly.

Source: RAGO (arXiv 2503.14649), section 4: a core scans PQ codes at a fixed rate, all
cores of a server share its memory bandwidth, one query runs on one core.
"""

from __future__ import annotations

from dataclasses import dataclass

from ragschema.hardware.devices import Accelerator, Host


@dataclass(frozen=True)
class Database:
    """What a search has to read.

    Attributes:
        vectors: in all.
        bytes_per_vector: of PQ codes, or of whole vectors where exact.
        scan_share: of the vectors at the leaves that a query scans.
        fanout: children per node of the tree; None: no tree, every vector is compared.
    """

    vectors: float
    bytes_per_vector: float
    scan_share: float = 1.0
    fanout: int | None = None

    @property
    def stored_bytes(self) -> float:
        return self.vectors * self.bytes_per_vector

    @property
    def level_bytes(self) -> tuple[float, ...]:
        """Bytes a query reads per level of the tree, root first; the root is read whole."""
        if self.fanout is None:
            return (self.stored_bytes * self.scan_share,)
        nodes, levels = self.vectors, []
        while nodes > self.fanout:
            levels.append(nodes * self.bytes_per_vector * self.scan_share)
            nodes /= self.fanout
        return (nodes * self.bytes_per_vector, *reversed(levels))


def search_s(database: Database, host: Host, servers: int, queries: int) -> float | None:
    """Seconds for a batch of queries on all servers; None: the database does not fit them.

    Without a tree the cores share one query; with one, a query has a core to itself.
    """
    if database.stored_bytes > servers * host.memory_bytes:
        return None
    bandwidth = host.memory_bytes_per_s * host.memory_share
    total = 0.0
    for level in database.level_bytes:
        mine = level / servers
        by_memory = queries * mine / bandwidth
        if database.fanout is None:
            total += max(by_memory, queries * mine / (host.cores * host.scan_bytes_per_s))
        else:
            waves = max(1.0, queries / host.cores)
            total += max(by_memory, mine * waves / host.scan_bytes_per_s)
    return total


def exact_on_gpu_s(
    database: Database, gpu: Accelerator, nodes: int, queries: int, dims: int
) -> float | None:
    """Seconds to compare a batch with all vectors; None: they do not fit.

    One matrix product: vectors are read once per batch.
    """
    if database.stored_bytes > nodes * gpu.memory_bytes:
        return None
    vectors = database.vectors / nodes
    return gpu.launch_s + max(
        2.0 * queries * vectors * dims / (gpu.flops_per_s * gpu.compute_share),
        vectors * database.bytes_per_vector / (gpu.memory_bytes_per_s * gpu.memory_share),
    )
