"""Stand-ins for tests: a scripted LLM servicer and an upstream that stalls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from ragschema import errors as e
from ragschema.wire import common_pb2, llm_pb2, llm_pb2_grpc
from ragschema.wire.convert import tensor_to_wire
from ragschema.wire.serving import Greeter, ListenOptions, serve, trace_id_of

LLM_SERVICE = "ragrig.wire.v1.LlmNode"
STEP_S = 0.02


class ScriptedLlm(llm_pb2_grpc.LlmNodeServicer):
    """Does what the first text of a request says.

    Embed: ``echo`` returns each text's length as a vector; ``raise:TYPE`` raises
    that error of the tree; ``crash`` fails with a plain exception; ``sleep``
    waits until it is cancelled and counts that; ``large:N`` answers N floats.
    Generate: tokens without end, or the same words in ``question``.
    """

    def __init__(self, greeter: Greeter | None = None) -> None:
        self.greeter = greeter or Greeter("scripted", "llm", ("embed", "generate"))
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.trace_ids: list[str] = []

    async def Hello(self, request: common_pb2.HelloRequest, context: Any) -> Any:
        return self.greeter.hello(request)

    async def Embed(self, request: llm_pb2.EmbedRequest, context: Any) -> llm_pb2.EmbedReply:
        self.trace_ids.append(trace_id_of(context))
        await self._obey(request.texts[0])
        if request.texts[0].startswith("large:"):
            size = int(request.texts[0].removeprefix("large:"))
            return llm_pb2.EmbedReply(vectors=tensor_to_wire(np.zeros((1, size), np.float32)))
        lengths = np.array([[len(text)] for text in request.texts], np.float32)
        return llm_pb2.EmbedReply(vectors=tensor_to_wire(lengths))

    async def Tokenize(self, request: llm_pb2.TokenizeRequest, context: Any) -> Any:
        raise e.IncompatibleRequest("the scripted node has no tokenizer")

    async def Status(self, request: llm_pb2.LlmStatusRequest, context: Any) -> Any:
        return llm_pb2.LlmStatusReply(running=int(self.started.is_set()))

    async def Generate(
        self, request: llm_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[llm_pb2.GenerateEvent]:
        self.started.set()
        try:
            while True:
                yield llm_pb2.GenerateEvent(token=llm_pb2.TokenEvent(text="on ", tokens=1))
                await asyncio.sleep(STEP_S)
                await self._obey(request.question)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def _obey(self, order: str) -> None:
        if order.startswith("raise:"):
            cls = e.all_error_types()[order.removeprefix("raise:")]
            raise cls("as ordered: ünïcode", field="texts.0", hint="order something else")
        if order.startswith("long:"):
            raise e.InvalidInput("x" * int(order.removeprefix("long:")), field="texts.0")
        if order == "surrogate":
            raise e.UnreadableDocument("cannot read 'a\udcff.txt'", field="path")
        if order == "crash":
            raise KeyError("a secret of the handler")
        if order == "sleep":
            self.started.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise


@contextlib.asynccontextmanager
async def running_node(
    ready_file: Path,
    servicer: llm_pb2_grpc.LlmNodeServicer,
    max_message_bytes: int = 1 << 20,
    port: int = 0,
) -> AsyncIterator[str]:
    """Serves through the real ``serve``; yields the address; ends it with SIGTERM."""
    options = ListenOptions(
        name="scripted",
        port=port,
        ready_file=ready_file,
        drain_s=0.2,
        max_message_bytes=max_message_bytes,
    )

    def register(server: grpc.aio.Server) -> None:
        llm_pb2_grpc.add_LlmNodeServicer_to_server(servicer, server)

    task = asyncio.create_task(serve(options, LLM_SERVICE, register))
    try:
        yield await _address_in(ready_file, task)
    finally:
        await _terminate(task)


async def _address_in(ready_file: Path, task: asyncio.Task[None]) -> str:
    while not ready_file.exists():
        if task.done():
            task.result()
        await asyncio.sleep(0.005)
    return str(json.loads(ready_file.read_text())["address"])


async def _terminate(task: asyncio.Task[None]) -> None:
    """What the supervisor does; the signal handler was set before the ready file."""
    if not task.done():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 20)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


async def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Waits until the condition holds; fails the test when it never does."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
