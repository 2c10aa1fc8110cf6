"""Services of a node whose generator is our own engine: they speak tokens and KV."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc

from llm_node.admission import Admission
from ragschema.wire import augment_pb2_grpc, kv_pb2_grpc

if TYPE_CHECKING:
    from llm_node.augment.service import AugmentService
    from llm_node.generate.hf import HfGenerator
    from llm_node.node import LoadedNode
    from llm_node.transfer.service import KvService


class TokenServices:
    """What a node with an engine offers beside ``LlmNode``; nothing without one.

    Args:
        generations: slots that all services of the node share.
    """

    def __init__(self, node: LoadedNode, generations: Admission) -> None:
        self._kv: KvService | None = None
        self._augment: AugmentService | None = None
        if not node.has_engine:
            return
        from llm_node.augment.service import AugmentService
        from llm_node.transfer.service import KvService

        generator = cast("HfGenerator", node.generator)
        self._kv = KvService(generator, node.options, generations)
        self._augment = AugmentService(generator, node.options, generations)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds them to the node's server."""
        if self._kv is not None:
            kv_pb2_grpc.add_KvNodeServicer_to_server(self._kv, server)
        if self._augment is not None:
            augment_pb2_grpc.add_AugmentNodeServicer_to_server(self._augment, server)

    async def close(self) -> None:
        if self._kv is not None:
            await self._kv.close()
