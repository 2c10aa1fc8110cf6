"""The caller's side of an Augment stream: tokens come while several questions are looked up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from ragschema.wire.augment_pb2 import AugmentEvent, AugmentMessage, RetrievalWanted

#: Answers what a node wants to know before it writes on.
Found = Callable[[RetrievalWanted], Awaitable[AugmentMessage]]
#: Events that were not taken up; the node's flow is held beyond.
_MOST_EVENTS = 64


class Conversation:
    """One stream: what the node wants is looked up while its other events pass."""

    def __init__(self, found: Found) -> None:
        self._found = found
        # Bounded by the answers that wait at once, each for one message.
        self._answers: asyncio.Queue[AugmentMessage] = asyncio.Queue()
        self._events: asyncio.Queue[AugmentEvent | Exception | None] = asyncio.Queue(_MOST_EVENTS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def said(self, start: AugmentMessage) -> AsyncIterator[AugmentMessage]:
        """The start, then answers as they are found."""
        yield start
        while True:
            yield await self._answers.get()

    async def heard(
        self, messages: AsyncGenerator[AugmentEvent, None]
    ) -> AsyncGenerator[AugmentEvent, None]:
        """Token and done events.

        Raises:
            Exception: what the stream raises, or looking something up.
        """
        self._start(self._read(messages))
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                if event.WhichOneof("event") == "wanted":
                    self._start(self._answer(event.wanted))
                else:
                    yield event
        finally:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, messages: AsyncGenerator[AugmentEvent, None]) -> None:
        try:
            async with aclosing(messages):
                async for message in messages:
                    await self._events.put(message)
        except Exception as error:  # noqa: BLE001 - raised by heard
            await self._events.put(error)
        else:
            await self._events.put(None)

    async def _answer(self, wanted: RetrievalWanted) -> None:
        try:
            message = await self._found(wanted)
        except Exception as error:  # noqa: BLE001 - raised by heard
            await self._events.put(error)
            return
        message.index = wanted.index
        self._answers.put_nowait(message)
