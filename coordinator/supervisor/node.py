"""One supervised node: started, watched, started again when it crashes."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from coordinator.supervisor.backoff import Backoff, BackoffConfig
from coordinator.supervisor.child import Child
from coordinator.supervisor.environment import child_environment
from coordinator.supervisor.logs import LogLimits, rotate_if_large, tail
from coordinator.supervisor.resolve import port_of
from coordinator.supervisor.rundir import RunDir
from ragschema.errors import RagrigError, Unavailable

NodeKind = Literal["llm", "retrieval", "coordinator"]
_USAGE_ERROR = 2


class NodeState(enum.StrEnum):
    """Where a node is in its life."""

    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "restarting"
    STOPPED = "stopped"
    FAILED = "failed"
    EXTERNAL = "external"


@dataclass(frozen=True)
class SupervisionPolicy:
    """When to give up and how long to wait.

    Attributes:
        max_failed_starts: starts in a row that end before the node was ever
            ready, after which the rig is stopped.
        start_timeout_s: a node not ready by then is killed; counts as failed.
        grace_s: between SIGTERM and SIGKILL.
        log_check_s: how often a log's size is looked at.
    """

    backoff: BackoffConfig = field(default_factory=BackoffConfig)
    logs: LogLimits = field(default_factory=LogLimits)
    max_failed_starts: int = 5
    start_timeout_s: float = 300.0
    grace_s: float = 8.0
    log_check_s: float = 10.0


@dataclass(frozen=True)
class NodeSpec:
    """What to run.

    Attributes:
        port: wished for, 0 for any; kept over restarts once it is known.
        command: the command line for a port.
        cpus: processors that the process stays on; empty: any.
    """

    name: str
    kind: NodeKind
    host: str
    port: int
    threads: int
    command: Callable[[int], tuple[str, ...]]
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class NodeView:
    """A node as a user sees it; ``note`` says why it is in this state."""

    name: str
    kind: NodeKind
    state: NodeState
    address: str | None
    pid: int | None
    restarts: int = 0
    note: str = ""


class ManagedNode:
    """Runs one node until it is stopped.

    Args:
        on_change: called with a fresh view after every change of state.
        env: the base environment, None for our own.
    """

    def __init__(
        self,
        spec: NodeSpec,
        run: RunDir,
        policy: SupervisionPolicy,
        on_change: Callable[[NodeView], None],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.spec = spec
        self._run = run
        self._policy = policy
        self._on_change = on_change
        self._env = child_environment(spec.threads, env)
        self._backoff = Backoff(policy.backoff)
        self._child: Child | None = None
        self._port = spec.port
        self._failed_starts = 0
        self._was_ready = asyncio.Event()
        self.view = NodeView(spec.name, spec.kind, NodeState.STARTING, None, None)

    async def supervise(self) -> None:
        """Starts the node and starts it again whenever it ends; runs until cancelled.

        Raises:
            Unavailable: it never became ready and there is no use in trying on.
        """
        restarts = 0
        while True:
            child = self._spawn(restarts)
            healthy_s, why = await self._live(child, restarts)
            child.kill_group()
            self._child = None
            self._give_up_if_hopeless(child, why)
            wait_s = self._backoff.after_crash_s(healthy_s)
            restarts += 1
            note = f"{why}; starting again in {wait_s:.1f} s"
            self._set(NodeState.BACKING_OFF, None, restarts, note)
            await asyncio.sleep(wait_s)

    async def until_ready(self) -> str:
        """The node's address, once it was ready for the first time."""
        await self._was_ready.wait()
        assert self.view.address is not None
        return self.view.address

    async def stop(self, grace_s: float) -> None:
        """Ends the process; ``supervise`` must have been cancelled before."""
        if self._child is not None:
            await self._child.stop(grace_s)
        self._set(NodeState.STOPPED, None, self.view.restarts, "")

    def kill(self) -> None:
        """Ends the process at once."""
        if self._child is not None:
            self._child.kill_group()

    def _spawn(self, restarts: int) -> Child:
        log_file = self._run.log_file(self.spec.name)
        rotate_if_large(log_file, self._policy.logs)
        argv = self.spec.command(self._port)
        try:
            ready_file = self._run.ready_file(self.spec.name)
            child = Child.start(argv, self._env, log_file, ready_file, self.spec.cpus)
        except RagrigError as error:
            raise Unavailable(
                f"node {self.spec.name} does not start: {error.message}",
                hint="install ragrig again",
            ) from error
        self._child = child
        self._set(NodeState.STARTING, child.pid, restarts, "")
        return child

    async def _live(self, child: Child, restarts: int) -> tuple[float, str]:
        """One life; how many seconds the node was ready and why it ended."""
        ready = await child.ready_or_end(self._policy.start_timeout_s)
        if ready is None:
            self._failed_starts += 1
            if child.exit_code() is None:
                await child.stop(self._policy.grace_s)
                return 0.0, f"not ready after {self._policy.start_timeout_s:g} s"
            return 0.0, _cause(await child.end()) + " before it was ready"
        self._failed_starts = 0
        self._port = port_of(ready.address)
        self._set(NodeState.READY, child.pid, restarts, "", ready.address)
        self._was_ready.set()
        since_s = time.monotonic()
        code = await self._watch(child)
        return time.monotonic() - since_s, _cause(code)

    async def _watch(self, child: Child) -> int:
        """Waits for the end, looking after the log's size meanwhile."""
        log_file = self._run.log_file(self.spec.name)
        while True:
            try:
                return await asyncio.wait_for(child.end(), self._policy.log_check_s)
            except TimeoutError:
                rotate_if_large(log_file, self._policy.logs)

    def _give_up_if_hopeless(self, child: Child, why: str) -> None:
        """A node that once was ready is tried for ever: part of a rig beats none."""
        if self._was_ready.is_set():
            return
        if (
            child.exit_code() != _USAGE_ERROR
            and self._failed_starts < self._policy.max_failed_starts
        ):
            return
        self._set(NodeState.FAILED, None, self.view.restarts, why)
        log_file = self._run.log_file(self.spec.name)
        times = "" if self._failed_starts == 1 else f" {self._failed_starts} times"
        raise Unavailable(
            f"node {self.spec.name} does not start: {why}{times}; it said last:\n{tail(log_file)}",
            hint=f"the whole log is {log_file}",
        )

    def _set(
        self,
        state: NodeState,
        pid: int | None,
        restarts: int,
        note: str,
        address: str | None = None,
    ) -> None:
        self.view = NodeView(
            self.spec.name,
            self.spec.kind,
            state,
            address or self.view.address,
            pid,
            restarts,
            note,
        )
        self._on_change(self.view)


def _cause(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exited with code {code}"
