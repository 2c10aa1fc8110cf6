"""The supervisor: brings a rig up, keeps it up, takes it down."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from coordinator.replan.settings import ReplanSettings, write_settings
from coordinator.supervisor.commands import Programs
from coordinator.supervisor.leftovers import end_leftovers
from coordinator.supervisor.node import ManagedNode, NodeSpec, NodeView, SupervisionPolicy
from coordinator.supervisor.ports import require_free
from coordinator.supervisor.readiness import Readiness, wait_ready
from coordinator.supervisor.resolve import port_of, with_addresses, write_rig
from coordinator.supervisor.rundir import NodeRecord, RigState, RunDir
from coordinator.supervisor.specs import coordinator_spec, external_views, llm_spec, node_specs
from ragschema.rig import LlmNodeConfig, RigConfig

Result = TypeVar("Result")


@dataclass(frozen=True)
class SupervisorOptions:
    """How a rig is run.

    Attributes:
        readyz_timeout_s: how long ``/readyz`` may take to turn good.
        replan: the coordinator watches whether the plan still fits; None: it does not.
        env: base environment of the nodes, None for our own.
    """

    programs: Programs = field(default_factory=Programs)
    policy: SupervisionPolicy = field(default_factory=SupervisionPolicy)
    readyz_timeout_s: float = 60.0
    replan: ReplanSettings | None = None
    env: Mapping[str, str] | None = None


class Supervisor:
    """Runs the coordinator and the nodes of one rig that have no address yet.

    Use as ``async with Supervisor(...) as s: await s.start()``; leaving the
    block stops everything. Must live on the main thread (see ``Child``).

    Args:
        rig: with absolute paths.
        on_change: told of every change of a node's state.
    """

    def __init__(
        self,
        rig: RigConfig,
        on_change: Callable[[NodeView], None],
        options: SupervisorOptions | None = None,
    ) -> None:
        self.run = RunDir.of(rig.data_dir)
        self._rig = rig
        self._options = options or SupervisorOptions()
        self._on_change = on_change
        programs = self._options.programs
        self._nodes = tuple(self._managed(s) for s in node_specs(rig, self.run, programs))
        replan = self._options.replan is not None
        self._coordinator = self._managed(coordinator_spec(rig, self.run, programs, replan))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Set when nodes came or went, so that those who watch them look again.
        self._others = asyncio.Event()
        self._lock = contextlib.ExitStack()
        self._serving = False

    async def __aenter__(self) -> Self:
        """Takes the run directory.

        Raises:
            Conflict: another supervisor has it.
        """
        self.run.create()
        self._lock.enter_context(self.run.locked())
        self.run.clear()
        await asyncio.to_thread(end_leftovers, self.run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            await self._stop()
            self.run.clear()

    async def start(self) -> Readiness:
        """Starts all nodes, then the coordinator; says where it serves.

        Raises:
            Unavailable: a wanted port is taken, or a node cannot be started;
                the message then ends with the last lines of its log.
        """
        await self.start_nodes()
        return await self.start_coordinator()

    async def start_nodes(self) -> None:
        """Starts the LLM and retrieval nodes and waits until each one serves."""
        for node in (self._coordinator, *self._nodes):
            _check_port(node.spec)
        for node in self._nodes:
            self._launch(node)
        await self.or_failure(_all_ready(self._nodes))

    async def start_coordinator(self) -> Readiness:
        """Starts the coordinator and waits for ``/readyz``; the nodes must be up."""
        self._write_rig(self._rig.coordinator.port)
        if self._options.replan is not None:
            self.run.clear_replan()
            write_settings(self.run.replan_file, self._options.replan)
        self._launch(self._coordinator)
        address = await self.or_failure(self._coordinator.until_ready())
        # A restarted coordinator reads this file and so comes back on its port.
        self._write_rig(port_of(address))
        self._serving = True
        self._write_state()
        return await self.or_failure(
            wait_ready(f"http://{address}", self._options.readyz_timeout_s)
        )

    def publish(self, rig: RigConfig) -> None:
        """Tells the coordinator of other nodes, or of other addresses.

        It reads the file when it starts, and follows it while it runs.

        Args:
            rig: in which every node has an address, or was admitted here.
        """
        self._rig = rig
        address = self._coordinator.view.address
        self._write_rig(rig.coordinator.port if address is None else port_of(address))
        if self._serving:
            self._write_state()

    async def or_failure(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Awaits ``work``, unless a node gives up first: then raises its Unavailable."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
            for node_task in self._tasks.values():
                if node_task.done():
                    node_task.result()
            return await task
        finally:
            task.cancel()

    async def watch(self) -> None:
        """Supervises until cancelled.

        Raises:
            Unavailable: a node that was never ready gave up.
        """
        while True:
            self._others.clear()
            await self.or_failure(self._others.wait())

    @property
    def rig(self) -> RigConfig:
        """That runs, or is told of to the coordinator."""
        return self._rig

    def coordinator_starts(self) -> int:
        """How often the coordinator was started anew."""
        return self._coordinator.view.restarts

    async def admit(self, config: LlmNodeConfig) -> None:
        """Starts one more LLM node, and waits until it serves.

        Raises:
            Unavailable: it does not, and is gone again.
        """
        node = self._managed(llm_spec(config, self.run, self._options.programs))
        _check_port(node.spec)
        self._nodes = (*self._nodes, node)
        living = asyncio.create_task(node.supervise(), name=f"supervise {config.name}")
        ready = asyncio.ensure_future(node.until_ready())
        try:
            await asyncio.wait({living, ready}, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()
        except BaseException:
            await self._end(node, living)
            raise
        finally:
            ready.cancel()
        self._tasks[config.name] = living
        self._others.set()

    async def dismiss(self, names: Collection[str]) -> None:
        """Stops nodes, one after the other; the coordinator must not use them any more."""
        for node in [node for node in self._nodes if node.spec.name in names]:
            await self._end(node, self._tasks.pop(node.spec.name))
        self._others.set()

    async def _end(self, node: ManagedNode, living: asyncio.Task[None]) -> None:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await node.stop(self._options.policy.grace_s)
        self._nodes = tuple(other for other in self._nodes if other is not node)
        if self._serving:
            self._write_state()

    def hurry(self) -> None:
        """Kills instead of waiting: the user asked a second time."""
        for node in (self._coordinator, *self._nodes):
            node.kill()

    def views(self) -> tuple[NodeView, ...]:
        """Every node of the rig, the coordinator first."""
        own = (self._coordinator.view, *(node.view for node in self._nodes))
        return own + external_views(self._rig)

    def _managed(self, spec: NodeSpec) -> ManagedNode:
        options = self._options
        return ManagedNode(spec, self.run, options.policy, self._changed, options.env)

    def _launch(self, node: ManagedNode) -> None:
        name = node.spec.name
        self._tasks[name] = asyncio.create_task(node.supervise(), name=f"supervise {name}")

    def _changed(self, view: NodeView) -> None:
        if self._serving:
            self._write_state()
        self._on_change(view)

    def _addresses(self) -> dict[str, str]:
        return {v.name: v.address for v in self.views() if v.address is not None}

    def _write_rig(self, port: int) -> None:
        write_rig(self.run.resolved_rig, with_addresses(self._rig, self._addresses(), port))

    def _write_state(self) -> None:
        records = tuple(
            NodeRecord(v.name, v.kind, v.address, v.pid)
            for v in self.views()
            if v.address is not None
        )
        coordinator = self._coordinator.view.address
        assert coordinator is not None, "state is written once the coordinator serves"
        self.run.write_state(RigState(os.getpid(), coordinator, records))

    async def _stop(self) -> None:
        """The coordinator first, so that it can finish what it is answering."""
        self._serving = False
        self.run.state_file.unlink(missing_ok=True)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        grace_s = self._options.policy.grace_s
        await self._coordinator.stop(grace_s)
        await asyncio.gather(*(node.stop(grace_s) for node in self._nodes))


async def _all_ready(nodes: tuple[ManagedNode, ...]) -> None:
    await asyncio.gather(*(node.until_ready() for node in nodes))


def _check_port(spec: NodeSpec) -> None:
    field = "coordinator.port" if spec.kind == "coordinator" else f"{spec.name}.port"
    require_free(spec.name, field, spec.host, spec.port)
