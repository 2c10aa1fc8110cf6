"""Retrieval for sequences that wait in the middle of their answers.

Those that wait at the same time are searched for together: the rig's stage
``iterative`` tells how many, and how long the first of them waits for company.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from coordinator.replan.observe import Workload
from coordinator.types import SearchOutcome, SearchSpec
from ragschema.errors import RagrigError
from ragschema.types import CallContext
from ragschema.wire.augment_pb2 import AugmentMessage, AugmentStart, RetrievalWanted

Search = Callable[[SearchSpec, CallContext], Awaitable[SearchOutcome]]


class Asking(Protocol):
    """The caller's side of the conversation with the node that writes.

    Attributes:
        answers: to the prompt; each asks by itself.
    """

    @property
    def answers(self) -> int: ...

    def start(self) -> AugmentStart:
        """The first message."""
        ...

    async def found(self, wanted: RetrievalWanted) -> AugmentMessage:
        """What the sequence goes on with."""
        ...


class SearchTogether:
    """Searches of one batch; those of a collection share calls further on."""

    def __init__(self, search: Search, workload: Workload) -> None:
        self._search = search
        self._workload = workload

    async def __call__(
        self, specs: Sequence[SearchSpec], context: CallContext
    ) -> Sequence[SearchOutcome | RagrigError]:
        """One outcome or error each, in their order."""
        self._workload.retrieved_again(len(specs))
        return await asyncio.gather(*(self._one(spec, context) for spec in specs))

    async def _one(self, spec: SearchSpec, context: CallContext) -> SearchOutcome | RagrigError:
        try:
            return await self._search(spec, context)
        except RagrigError as error:
            return error
