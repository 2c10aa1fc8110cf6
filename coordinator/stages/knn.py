"""kNN-LM: at every token the model's last state asks which tokens followed such states."""

from __future__ import annotations

import numpy as np

from coordinator.batcher import Batcher
from coordinator.datastore.rows import next_token_of
from coordinator.types import SearchOutcome, SearchSpec
from ragschema.errors import UpstreamError
from ragschema.generation import KnnConfig
from ragschema.types import CallContext, GenerateSpec
from ragschema.wire.augment_pb2 import (
    AugmentMessage,
    AugmentStart,
    NeighbourMixing,
    Neighbours,
    RetrievalWanted,
)
from ragschema.wire.convert import tensor_from_wire, tensor_to_wire
from ragschema.wire.generating import generate_to_wire


class KnnAsking:
    """Answers to one prompt. A search that fails ends it, as its tokens would be others."""

    def __init__(
        self,
        config: KnnConfig,
        batcher: Batcher[SearchSpec, SearchOutcome],
        spec: GenerateSpec,
        context: CallContext,
    ) -> None:
        self._config = config
        self._batcher = batcher
        self._spec = spec
        self._context = context

    @property
    def answers(self) -> int:
        """Answers to the prompt."""
        return self._spec.sampling.n

    def start(self) -> AugmentStart:
        """How to mix."""
        mixing = NeighbourMixing(lam=self._config.lam, temperature=self._config.temperature)
        return AugmentStart(request=generate_to_wire(self._spec), neighbours=mixing)

    async def found(self, wanted: RetrievalWanted) -> AugmentMessage:
        """Tokens behind the nearest states, and squared distances.

        Raises:
            UpstreamError: the node told no state.
            IncompatibleRequest: the collection is no datastore, or of another model.
        """
        if not wanted.HasField("hidden"):
            raise UpstreamError("an LLM node asked for neighbours of no state")
        state = tensor_from_wire(wanted.hidden, np.float32, 1, "hidden")
        spec = SearchSpec(self._config.collection, self._config.k, vector=state)
        hits = (await self._batcher.submit(spec, self._context)).value.hits
        tokens = np.array([next_token_of(hit) for hit in hits], dtype=np.int32)
        # A score is minus the distance.
        distances = np.array([-hit.score for hit in hits], dtype=np.float32)
        return AugmentMessage(
            neighbours=Neighbours(
                tokens=tensor_to_wire(tokens), distances=tensor_to_wire(distances)
            )
        )
