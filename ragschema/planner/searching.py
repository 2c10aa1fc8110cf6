"""The retrieval stage of a workload: which cost model speaks for which node and index."""

from __future__ import annotations

import math

from ragschema.errors import InvalidInput
from ragschema.hardware.devices import Accelerator, Fpga, Host
from ragschema.lengths import lengths_of
from ragschema.planner.cost.ivfpq import IvfPq, ivfpq_s
from ragschema.planner.cost.network import Network, fan_out_s
from ragschema.planner.cost.retrieval import Database, exact_on_gpu_s, search_s
from ragschema.pool import NetworkConfig
from ragschema.workload import DatabaseConfig, RagSchema

#: Of a result on the wire: an id and a distance.
_RESULT_BYTES = 12.0


class Retrieval:
    """Seconds of a schema's retrievals on nodes of one kind.

    Raises:
        InvalidInput: there is no cost model for the index on such nodes.
    """

    def __init__(
        self,
        schema: RagSchema,
        node: Host | Fpga | Accelerator,
        network: NetworkConfig | None,
    ) -> None:
        assert schema.database is not None, "asked only with a database"
        self._database = schema.database
        self._vectors = _vectors(schema, schema.database)
        self._queries = schema.retrieval.queries
        self._question = lengths_of(schema.lengths.question, "lengths.question").mean
        self._node = node
        self._network = None if network is None else network_of(network)
        index = self._database.index
        if (index == "tree" and not isinstance(node, Host)) or (
            index == "exact" and isinstance(node, Fpga)
        ):
            raise InvalidInput(
                f"there is no model of a search with index {index} on {node.name!r}",
                field="database.index",
                hint="use ivfpq, or hosts",
            )

    def seconds(self, nodes: int, batch: int) -> float | None:
        """Of a batch of requests; None: the database does not fit the nodes."""
        search = self._search_s(nodes, batch * self._queries)
        return None if search is None else search + self.network_s(nodes, batch)

    def network_s(self, nodes: int, batch: int) -> float:
        """What the network adds to a batch; 0 without one."""
        if self._network is None:
            return 0.0
        queries = batch * self._queries
        nbytes = queries * (4.0 * self._database.dims + _RESULT_BYTES * self._database.results)
        # The coordinator is one of those that a message passes.
        return fan_out_s(self._network, nodes + 1, nbytes)

    def fits(self, nodes: int) -> bool:
        """Whether so many nodes hold the database."""
        return self._search_s(nodes, 1) is not None

    def features(self, nodes: int, batch: int) -> dict[str, float]:
        """What a profile may have measured a search over; codes are those of all queries."""
        index, queries = self._ivfpq(), batch * self._queries
        return {
            "batch": queries,
            "nprobe": index.nprobe,
            "nlist": index.nlist,
            "codes": queries * index.vectors * index.scan_share / nodes,
            "k": index.results,
            "dim": index.dims,
            "tokens": self._question,
        }

    def _search_s(self, nodes: int, queries: int) -> float | None:
        config, node = self._database, self._node
        if config.index == "ivfpq":
            return ivfpq_s(self._ivfpq(), node, nodes, queries)
        exact = config.index == "exact"
        database = Database(
            self._vectors,
            config.bytes_per_vector,
            1.0 if exact else config.scanned_share,
            None if exact else config.fanout,
        )
        if isinstance(node, Accelerator):
            return exact_on_gpu_s(database, node, nodes, queries, config.dims)
        assert isinstance(node, Host), "checked at the start"
        return search_s(database, node, nodes, queries)

    def _ivfpq(self) -> IvfPq:
        config = self._database
        return IvfPq(
            self._vectors,
            config.dims,
            config.bytes_per_vector,
            config.nlist,
            config.scanned_share,
            config.results,
        )


def network_of(config: NetworkConfig) -> Network:
    """A pool's network, for the cost models."""
    return Network(config.hop_s, config.bytes_per_s)


def _vectors(schema: RagSchema, database: DatabaseConfig) -> float:
    if database.vectors is not None:
        return database.vectors
    encoder = schema.encoder
    assert encoder is not None, "the schema was checked"
    return float(math.ceil(encoder.context / encoder.chunk))
