"""Write: the pipeline's last stage, of the kind that the rig asks for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from coordinator.batcher import Batcher
from coordinator.nodes.pool import NodePool
from coordinator.stages.gate import Gate
from coordinator.stages.generate import GenerateStage, GenerateStart
from coordinator.stages.interval import IntervalAsking
from coordinator.stages.knn import KnnAsking
from coordinator.stages.prefill_decode import PrefillDecodeStage
from coordinator.stages.prompt import Prompt
from coordinator.types import SearchOutcome, SearchSpec
from ragschema.generation import GenerationConfig
from ragschema.types import CallContext, GenerateEvent


class WriteStage:
    """Chooses who writes an answer.

    Args:
        iterative: searches of answers that ask while they are written.
        model_of: fingerprint of the model whose vectors a collection holds.
    """

    def __init__(
        self,
        config: GenerationConfig,
        pool: NodePool,
        gate: Gate,
        iterative: Batcher[SearchSpec, SearchOutcome],
        model_of: Callable[[str], str | None],
    ) -> None:
        self._config = config
        self._iterative = iterative
        self._model_of = model_of
        self._whole = GenerateStage(pool, gate)
        self._apart = PrefillDecodeStage(pool, gate)
        self._pool = pool

    def __call__(
        self, prompt: Prompt, search: SearchSpec, context: CallContext
    ) -> AsyncGenerator[GenerateStart | GenerateEvent]:
        """Start, pieces, end; see the stages for what they raise.

        Args:
            search: as the question was searched.
        """
        config = self._config
        if config.kind == "interval":
            return self._whole.augmented(
                IntervalAsking(
                    config.interval, self._iterative, prompt.spec, search, prompt.hits, context
                ),
                context,
            )
        if config.kind == "knn":
            assert config.knn is not None, "check_generation saw to it"
            asking = KnnAsking(config.knn, self._iterative, prompt.spec, context)
            return self._whole.augmented(asking, context, self._model_of(config.knn.collection))
        stage = self._apart if self._pool.disaggregated else self._whole
        return stage(prompt.spec, context)
