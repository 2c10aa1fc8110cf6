"""A node under watch: connected, checked, replaced by a fresh connection when lost.

A node known to be away costs a request nothing: it is skipped. One that hangs
is declared lost by the checks, and closing its connection ends the calls in
flight at once instead of at their deadlines.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from coordinator.metrics import Metrics
from coordinator.nodes.clients import LlmClient, RetrievalClient
from coordinator.nodes.health import NodeHealth, NodeKind
from coordinator.nodes.pooled import said_by_node
from ragschema.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    RagrigError,
    Unavailable,
    VersionMismatch,
)
from ragschema.types import CallContext
from ragschema.wire.client import say_hello
from ragschema.wire.common_pb2 import HelloReply

log = logging.getLogger(__name__)

Client = TypeVar("Client", LlmClient, RetrievalClient)


@dataclass(frozen=True)
class WatchConfig:
    """How nodes are checked.

    Attributes:
        period_s: from the end of one check to the next.
        timeout_s: of one check.
        patience: checks in a row that may time out before the node counts as
            lost; a busy machine is slow now and then. A broken connection
            needs no patience.
        load_timeout_s: for loading one snapshot's shards.
        retry_load_s: pause after a load that failed.
    """

    period_s: float = 0.5
    timeout_s: float = 2.0
    patience: int = 3
    load_timeout_s: float = 600.0
    retry_load_s: float = 5.0


class WatchedNode(ABC, Generic[Client]):
    """Base of both kinds.

    Attributes:
        client: to be read anew for each call; it is replaced when the node is lost.
        ready: whether the last check succeeded.
        inflight: calls of this coordinator under way at the node.
    """

    kind: ClassVar[NodeKind]

    def __init__(
        self,
        name: str,
        address: str,
        required: tuple[str, ...],
        metrics: Metrics,
        config: WatchConfig,
    ) -> None:
        self.name = name
        self.address = address
        self.ready = False
        self.inflight = 0
        self._required = required
        self._metrics = metrics
        self._config = config
        self._instance_id: str | None = None
        self._latency_ms: float | None = None
        self._error: str | None = "not checked yet"
        self._detail: Mapping[str, object] = {}
        self._slow_checks = 0
        self._check_now = asyncio.Event()
        self._checked = asyncio.Event()
        self._once_ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.client: Client = self._connect()

    @abstractmethod
    def _connect(self) -> Client:
        """A fresh client; nothing is sent yet."""

    @abstractmethod
    async def _inspect(self, restarted: bool, context: CallContext) -> Mapping[str, object]:
        """Asks the node for its status; gives ``NodeHealth.detail``."""

    def _greeted(self, capabilities: frozenset[str]) -> None:
        """Called at every check with what the node can do."""

    def start(self) -> None:
        self._metrics.node_up(self.name, self.kind, False)
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def first_check(self) -> None:
        """Returns when the node was checked once, well or not."""
        await self._checked.wait()

    async def until_ready(self) -> None:
        """Returns when a check succeeded."""
        await self._once_ready.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.ready = False
        await self.client.close()

    def health(self) -> NodeHealth:
        return NodeHealth(
            name=self.name,
            kind=self.kind,
            address=self.address,
            ready=self.ready,
            latency_ms=self._latency_ms,
            error=self._error,
            instance_id=self._instance_id,
            detail=self._detail,
        )

    def failed(self, error: RagrigError) -> None:
        """Tells of a failed call, so that the node is looked at now.

        After a broken connection it is not used again until a check succeeds.
        """
        self._metrics.node_failed(self.name, error)
        if is_loss(error) and not said_by_node(error):
            self._set_ready(False)
            self._error = error.message
        self.check_soon()

    def check_soon(self) -> None:
        """Makes the next check due now."""
        self._check_now.set()

    async def _watch(self) -> None:
        while True:
            await self._check()
            self._checked.set()
            try:
                async with asyncio.timeout(self._config.period_s):
                    await self._check_now.wait()
            except TimeoutError:
                continue
            # Many calls may fail together; they are worth one check, not a storm.
            self._check_now.clear()
            await asyncio.sleep(self._config.period_s / 20)

    async def _check(self) -> None:
        context = CallContext.start(self._config.timeout_s)
        started_s = time.perf_counter()
        try:
            reply = await self._greet(context)
            self._greeted(frozenset(reply.capabilities))
            restarted = reply.instance_id != self._instance_id
            if restarted and self._instance_id is not None:
                log.warning("node %s was restarted", self.name)
            self._detail = await self._inspect(restarted, context)
            self._instance_id = reply.instance_id
        except RagrigError as error:
            await self._lost(error)
        except Exception as error:
            log.exception("defect while checking node %s", self.name)
            await self._lost(InternalError(f"checking node {self.name} failed: {error}"))
        else:
            self._latency_ms = (time.perf_counter() - started_s) * 1e3
            self._slow_checks = 0
            self._error = None
            self._set_ready(True)
            self._once_ready.set()

    async def _greet(self, context: CallContext) -> HelloReply:
        try:
            reply = await say_hello(self.client, self.client.stub, context, self._required)
        except VersionMismatch as error:
            if error.hint is not None:
                raise
            # The bare status of a server that does not know the call.
            raise self._stranger(f"no {self.kind} node") from error
        if reply.node_kind != self.kind:
            raise self._stranger(f"the {reply.node_kind} node {reply.node_name!r}")
        return reply

    def _stranger(self, what: str) -> VersionMismatch:
        return VersionMismatch(
            f"at {self.address} is {what}, where the {self.kind} node {self.name!r} should be",
            field="address",
            hint="correct the address in the rig file",
        )

    async def _lost(self, error: RagrigError) -> None:
        if isinstance(error, DeadlineExceeded):
            self._slow_checks += 1
            if self.ready and self._slow_checks < self._config.patience:
                return
        if self.ready or self._error is None:
            log.warning("node %s at %s is not usable: %s", self.name, self.address, error)
        self._set_ready(False)
        self._error = str(error)
        # A fresh channel tries to connect at the next check; the old one would
        # first sit out its back-off. Closing it ends the calls that hang in it.
        old, self.client = self.client, self._connect()
        await old.close()

    def _set_ready(self, ready: bool) -> None:
        if ready != self.ready:
            log.info("node %s is %s", self.name, "ready" if ready else "away")
            self.ready = ready
            self._metrics.node_up(self.name, self.kind, ready)


def is_loss(error: RagrigError) -> bool:
    """Whether an error says that the node, or what it needs, is away."""
    return isinstance(error, (Unavailable, Cancelled))


def lost(node: WatchedNode[Any], error: Unavailable | Cancelled) -> RagrigError:
    """What the caller is told when no other node can take over.

    A cancellation that the caller did not ask for came from a node that ended.
    """
    if isinstance(error, Unavailable):
        return error
    return Unavailable(
        f"node {node.name} was lost while it answered",
        hint="try again; see /readyz for the state of every node",
        trace_id=error.trace_id,
    )


def is_callers_fault(error: RagrigError) -> bool:
    """Whether another node would give the same error."""
    return isinstance(error, (InvalidInput, DeadlineExceeded))
