"""Stand-ins for tests, at the edges of ports: scripted and hashing LLM servicers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


WORD = re.compile(r"\w+|[^\w\s]")


class HashingLlm(llm_pb2_grpc.LlmNodeServicer):
    """An embedder whose vectors are sums of a random vector per word: fast, and nearness means
    shared words.

    Attributes:
        embedded: texts embedded so far.
        outages: so many calls to Embed fail as unavailable before one works.
    """

    def __init__(self, dim: int = 32, fingerprint: str = "hash-1", max_tokens: int = 512) -> None:
        self.greeter = Greeter("hashing", "llm", ("embed",))
        self.dim = dim
        self.fingerprint = fingerprint
        self.max_tokens = max_tokens
        self.embedded = 0
        self.outages = 0
        self._words: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]] = {}

    def Hello(self, request: common_pb2.HelloRequest, context: Any) -> common_pb2.HelloReply:
        return self.greeter.hello(request)

    def Status(self, request: Any, context: Any) -> llm_pb2.LlmStatusReply:
        model = llm_pb2.ModelInfo(
            role=llm_pb2.ROLE_EMBED,
            name="hashing",
            fingerprint=self.fingerprint,
            dim=self.dim,
            max_input_tokens=self.max_tokens,
        )
        return llm_pb2.LlmStatusReply(models=[model])

    def Tokenize(self, request: llm_pb2.TokenizeRequest, context: Any) -> llm_pb2.TokenizeReply:
        return llm_pb2.TokenizeReply(
            offsets=[tensor_to_wire(word_offsets(text)) for text in request.texts]
        )

    def Embed(self, request: llm_pb2.EmbedRequest, context: Any) -> llm_pb2.EmbedReply:
        if self.outages > 0:
            self.outages -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        vectors = np.stack([self.vector(text) for text in request.texts])
        self.embedded += len(request.texts)
        return llm_pb2.EmbedReply(vectors=tensor_to_wire(vectors), tokens=len(request.texts))

    def vector(self, text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """float32 [dim], unit length."""
        total = np.full(self.dim, 1e-3, dtype=np.float32)
        for word in WORD.findall(text.lower()):
            total += self._word(word)
        return (total / np.linalg.norm(total)).astype(np.float32)

    def _word(self, word: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        if word not in self._words:
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
            vector = np.random.default_rng(seed).standard_normal(self.dim)
            self._words[word] = vector.astype(np.float32)
        return self._words[word]


def word_offsets(text: str) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """int32 [tokens, 2]: words and single marks."""
    found = [match.span() for match in WORD.finditer(text)]
    return np.array(found, dtype=np.int32).reshape(-1, 2)


@contextlib.contextmanager
def serving_in_threads(servicer: HashingLlm) -> Iterator[str]:
    """Serves until the block ends; yields the address. Needs no event loop."""
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    llm_pb2_grpc.add_LlmNodeServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
