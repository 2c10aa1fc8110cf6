"""A rig whose nodes run on a Ray cluster, and whose coordinator runs here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from coordinator.ray_engine.deployment import RayDeployment, RayOptions
from coordinator.supervisor.node import NodeView
from coordinator.supervisor.readiness import Readiness
from coordinator.supervisor.supervisor import Supervisor, SupervisorOptions
from ragschema.errors import DeadlineExceeded, RagrigError
from ragschema.rig import RigConfig

_POLL_S: Final = 0.1


class RayEngine:
    """Runs one rig; use as ``async with RayEngine(...) as e: await e.start()``.

    Leaving the block stops the coordinator, then the nodes. Must live on the main thread.

    Args:
        ray: the module, connected; see ``library.connected``.
        rig: with absolute paths, reachable under the same names on every machine.
        on_change: told of every change of a node's state.
    """

    def __init__(
        self,
        ray: Any,
        rig: RigConfig,
        on_change: Callable[[NodeView], None],
        options: RayOptions | None = None,
        supervision: SupervisorOptions | None = None,
    ) -> None:
        self._ray = ray
        self._rig = rig
        self._on_change = on_change
        self._options = options or RayOptions()
        self._deployments = 0
        self._deployment: RayDeployment | None = None
        self.supervisor = Supervisor(_without_nodes(rig), on_change, supervision)
        self._changing = asyncio.Lock()
        self._running: list[RayDeployment] = []

    async def __aenter__(self) -> Self:
        """Takes the run directory.

        Raises:
            Conflict: another supervisor has it.
        """
        await self.supervisor.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.supervisor.__aexit__(kind, error, trace)
        finally:
            await asyncio.gather(*(d.stop() for d in self._running))

    async def start(self) -> Readiness:
        """Starts all nodes, then the coordinator; says where it serves.

        Raises:
            IncompatibleRequest: the cluster has not what the rig needs; nothing was started.
            Unavailable: a port is taken, or a node cannot be started.
        """
        await self.supervisor.start_nodes()  # none are here: this looks at the REST port alone
        self._deployment = await self._deployed(self._rig, None)
        self.supervisor.publish(self._deployment.resolved())
        return await self.supervisor.start_coordinator()

    async def watch(self) -> None:
        """Supervises until cancelled: publishes where nodes are that Ray started elsewhere.

        Raises:
            Unavailable: the coordinator gave up.
        """
        await self.supervisor.or_failure(self._look_on())

    async def move_to(self, rig: RigConfig, drain_s: float = 600.0) -> None:
        """Goes over to another rig of the same collections without losing a request.

        Its nodes start beside the present ones, the coordinator goes over to them, and the
        present ones end when nothing is under way at them any more.

        Args:
            drain_s: answers that take longer are broken.

        Raises:
            IncompatibleRequest: the cluster cannot hold both; all stays as it is.
            Unavailable: a node does not start; all stays as it is.
            DeadlineExceeded: the coordinator did not go over; all stays as it was.
        """
        async with self._changing:
            before = self._deployment
            assert before is not None, "a started engine"
            after = await self._deployed(rig, before)
            self._deployment = after
            try:
                await self.supervisor.or_failure(self._followed(after))
            except RagrigError:
                self._deployment = before
                self.supervisor.publish(before.resolved())
                await self._end(after)
                raise
            await self.supervisor.or_failure(self._drained(after, drain_s))
            await self._end(before)

    def views(self) -> tuple[NodeView, ...]:
        """Every node of the rig, the coordinator first."""
        coordinator, *elsewhere = self.supervisor.views()
        known = {} if self._deployment is None else self._deployment.views
        return (coordinator, *(known.get(view.name, view) for view in elsewhere))

    def hurry(self) -> None:
        """Kills instead of waiting: the user asked a second time."""
        self.supervisor.hurry()
        for deployment in self._running:
            deployment.kill()

    async def _deployed(self, rig: RigConfig, beside: RayDeployment | None) -> RayDeployment:
        self._deployments += 1
        number = self._deployments
        made = RayDeployment(self._ray, rig, number, self._on_change, self._options)
        self._running.append(made)
        try:
            await self.supervisor.or_failure(made.start(beside))
        except BaseException:
            await self._end(made)
            raise
        return made

    async def _look_on(self) -> None:
        while True:
            # Also while another rig starts: what runs may move meanwhile.
            assert self._deployment is not None, "a started engine"
            if await self._deployment.look():
                self.supervisor.publish(self._deployment.resolved())
            await asyncio.sleep(self._options.look_s)

    async def _end(self, deployment: RayDeployment) -> None:
        self._running.remove(deployment)
        await deployment.stop()

    async def _followed(self, after: RayDeployment) -> None:
        """Returns once the coordinator asks the new nodes and no others."""
        give_up_s = time.monotonic() + self._options.follow_s
        self.supervisor.publish(after.resolved())
        while not self._uses(await self._status(), after):
            if time.monotonic() > give_up_s:
                raise DeadlineExceeded(
                    f"the coordinator did not go over to the new nodes within"
                    f" {self._options.follow_s:g} s",
                    hint="see <data_dir>/run/logs/coordinator.log",
                )
            if await after.look():
                self.supervisor.publish(after.resolved())
            await asyncio.sleep(_POLL_S)

    async def _drained(self, after: RayDeployment, drain_s: float) -> None:
        """Returns once nothing is under way at the nodes that it left, or the time is over."""
        give_up_s = time.monotonic() + drain_s
        while time.monotonic() < give_up_s:
            status = await self._status()
            if status.get("leaving") == [] and self._uses(status, after):
                return
            if await after.look():
                self.supervisor.publish(after.resolved())
            await asyncio.sleep(_POLL_S)

    async def _status(self) -> dict[str, Any]:
        """What the coordinator says; nothing while it does not answer."""
        key_file = self._rig.coordinator.api_key_file
        headers = {}
        if key_file is not None:
            key = await asyncio.to_thread(Path(key_file).read_text, encoding="ascii")
            headers["authorization"] = f"Bearer {key.strip()}"
        url = f"http://{self.supervisor.views()[0].address}/v1/status"
        with contextlib.suppress(httpx.HTTPError, ValueError):
            async with httpx.AsyncClient(headers=headers, trust_env=False) as rest:
                found: dict[str, Any] = (await rest.get(url)).raise_for_status().json()
                return found
        return {}

    @staticmethod
    def _uses(status: dict[str, Any], deployment: RayDeployment) -> bool:
        rig = deployment.resolved()
        used = {(node["name"], node["address"]) for node in status.get("nodes", ())}
        llm = {(n.name, n.address) for n in rig.llm_nodes}
        return used == llm | {(n.name, n.address) for n in rig.retrieval_nodes}


def _without_nodes(rig: RigConfig) -> RigConfig:
    return replace(rig, llm_nodes=(), retrieval_nodes=())
