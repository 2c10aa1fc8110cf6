"""One rig on a cluster: a placement group, and an actor for every node in it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from coordinator.ray_engine.actor import NodeActor, order_of, view_from_dict
from coordinator.ray_engine.placement import Need, check_fits, needs_of, on_ray
from coordinator.supervisor.commands import Programs
from coordinator.supervisor.node import NodeState, NodeView, SupervisionPolicy
from ragschema.errors import IncompatibleRequest, Unavailable
from ragschema.rig import RigConfig

_STRATEGY: Final = "SPREAD"
_GONE: Final = "does not answer: its machine or actor is gone, and Ray starts it again"


@dataclass(frozen=True)
class RayOptions:
    """How a rig is run on a cluster.

    Attributes:
        look_s: between two looks at every actor.
        answer_s: an actor that has not answered by then is away.
        place_s: how long Ray may take to reserve what the nodes need.
        start_s: how long all nodes may take until each one serves.
        follow_s: how long the coordinator may take to load what it serves on new nodes.
        stop_s: how long an actor may take to end its node.
        host: address that nodes listen on; None: their machine's in the cluster.
        programs: of the nodes; None: those of each machine's installation.
    """

    look_s: float = 0.25
    answer_s: float = 2.0
    place_s: float = 20.0
    start_s: float = 300.0
    follow_s: float = 600.0
    stop_s: float = 15.0
    policy: SupervisionPolicy = field(default_factory=SupervisionPolicy)
    host: str | None = None
    programs: Programs | None = None


class RayDeployment:
    """The nodes of one rig; ``start``, then ``look`` now and then, ``stop`` at the end.

    Args:
        ray: the module, connected.
        rig: with absolute paths; nodes with an address are left alone.
        number: of this deployment among those of one engine; parts their run files.
        on_change: told of every change of a node's view.
    """

    def __init__(
        self,
        ray: Any,
        rig: RigConfig,
        number: int,
        on_change: Callable[[NodeView], None],
        options: RayOptions | None = None,
    ) -> None:
        self.rig = on_ray(rig)
        self._ray = ray
        self._number = number
        self._on_change = on_change
        self._options = options or RayOptions()
        self._group: Any = None
        self._actors: dict[str, Any] = {}
        self._kinds = {n.name: "llm" for n in self.rig.llm_nodes} | {
            n.name: "retrieval" for n in self.rig.retrieval_nodes
        }
        self.views: dict[str, NodeView] = {}
        self._addresses: dict[str, str] = {}
        self._losses: dict[str, int] = {}

    async def start(self, beside: RayDeployment | None = None) -> None:
        """Reserves, starts every node and waits until all of them serve.

        Args:
            beside: what has to run on meanwhile.

        Raises:
            IncompatibleRequest: the cluster has not what the rig needs; nothing was started.
            Unavailable: a node does not start; the message ends with its log.
        """
        needs = needs_of(self.rig)
        check_fits(needs, self._machines(beside))
        await self._reserve(needs)
        for number, need in enumerate(needs):
            self._actors[need.name] = self._actor(number, need)
        try:
            async with asyncio.timeout(self._options.start_s):
                await self._until_ready()
        except TimeoutError as error:
            missing = sorted(n for n in self._actors if not self._is_ready(n))
            raise Unavailable(
                f"{', '.join(missing)} did not start within {self._options.start_s:g} s",
                hint="see <data_dir>/run/ray on the machines of the cluster",
            ) from error

    async def look(self) -> bool:
        """Asks every actor for its node; whether an address changed."""
        before = dict(self._addresses)
        await asyncio.gather(*(self._look_at(name, actor) for name, actor in self._actors.items()))
        return self._addresses != before

    def resolved(self) -> RigConfig:
        """The rig with the addresses where its nodes serve, or did last; for a started one."""
        found = self._addresses
        return replace(
            self.rig,
            llm_nodes=tuple(_addressed(n, found) for n in self.rig.llm_nodes),
            retrieval_nodes=tuple(_addressed(n, found) for n in self.rig.retrieval_nodes),
        )

    async def stop(self) -> None:
        """Ends every node, politely first, and gives back what was reserved."""
        await asyncio.gather(*(self._stop_one(actor) for actor in self._actors.values()))
        self.kill()

    def kill(self) -> None:
        """Ends everything at once."""
        for actor in self._actors.values():
            self._ray.kill(actor, no_restart=True)
        self._actors.clear()
        if self._group is not None:
            self._ray.util.remove_placement_group(self._group)
            self._group = None

    def _machines(self, beside: RayDeployment | None) -> list[dict[str, float]]:
        """What each machine of the cluster has, without what another deployment holds."""
        machines = {
            node["NodeID"]: dict(node["Resources"]) for node in self._ray.nodes() if node["Alive"]
        }
        for machine, resources in () if beside is None else beside.held():
            for resource, amount in resources.items():
                if machine in machines:
                    machines[machine][resource] -= amount
        return list(machines.values())

    def held(self) -> list[tuple[str, Mapping[str, float]]]:
        """Where each of its nodes is placed, and what it takes there."""
        if self._group is None:
            return []
        table = self._ray.util.placement_group_table(self._group)
        places = table["bundles_to_node_id"]
        return [(places[number], bundle) for number, bundle in table["bundles"].items()]

    async def _reserve(self, needs: tuple[Need, ...]) -> None:
        bundles = [dict(need.resources) for need in needs]
        self._group = self._ray.util.placement_group(bundles, strategy=_STRATEGY)
        try:
            await asyncio.wait_for(self._group.ready(), self._options.place_s)
        except TimeoutError as error:
            free = self._ray.available_resources()
            self.kill()
            raise IncompatibleRequest(
                f"others use what the plan needs of the cluster: {_wants(needs, free)}",
                field="plan.groups",
                hint="stop them, or add machines; `ray status` lists what is free",
            ) from error

    def _actor(self, number: int, need: Need) -> Any:
        strategies = self._ray.util.scheduling_strategies
        place = strategies.PlacementGroupSchedulingStrategy(
            placement_group=self._group, placement_group_bundle_index=number
        )
        resources = {r: n for r, n in need.resources.items() if r not in ("CPU", "GPU")}
        remote = self._ray.remote(NodeActor).options(
            num_cpus=need.resources.get("CPU", 0.0),
            num_gpus=need.resources.get("GPU", 0.0),
            resources=resources,
            scheduling_strategy=place,
            max_restarts=-1,
            max_task_retries=0,
        )
        options = self._options
        folder = f"{self._number}-{need.name}"
        order = order_of(self.rig, need.name, folder, options.policy, options.programs)
        return remote.remote(replace(order, host=options.host).to_json())

    async def _until_ready(self) -> None:
        while True:
            await self.look()
            failed = [v for v in self.views.values() if v.state is NodeState.FAILED]
            if failed:
                raise Unavailable(failed[0].note)
            if all(self._is_ready(name) for name in self._actors):
                return
            await asyncio.sleep(self._options.look_s)

    def _is_ready(self, name: str) -> bool:
        view = self.views.get(name)
        return view is not None and view.state is NodeState.READY

    async def _look_at(self, name: str, actor: Any) -> None:
        try:
            raw: Mapping[str, Any] = await asyncio.wait_for(
                actor.view.remote(), self._options.answer_s
            )
            view = self._told(view_from_dict(raw))
        except (TimeoutError, self._ray.exceptions.RayError):
            view = self._away(name)
        before = self.views.get(name)
        self.views[name] = view
        if before is None or replace(before, pid=view.pid) != view:
            self._on_change(view)

    def _told(self, view: NodeView) -> NodeView:
        """Another actor of the same node knows neither its last address nor its restarts."""
        if view.state is NodeState.READY and view.address is not None:
            self._addresses[view.name] = view.address
        return replace(
            view,
            address=view.address or self._addresses.get(view.name),
            restarts=view.restarts + self._losses.get(view.name, 0),
        )

    def _away(self, name: str) -> NodeView:
        before = self.views.get(name)
        if before is None or (before.pid is None and before.note != _GONE):
            # Its actor is not there yet.
            kind: Any = self._kinds[name]
            return NodeView(name, kind, NodeState.STARTING, None, None)
        if before.note != _GONE:
            self._losses[name] = self._losses.get(name, 0) + 1
        return replace(before, state=NodeState.BACKING_OFF, pid=None, note=_GONE)

    async def _stop_one(self, actor: Any) -> None:
        try:
            await asyncio.wait_for(actor.stop.remote(), self._options.stop_s)
        except (TimeoutError, self._ray.exceptions.RayError):
            return  # it is killed next


def _addressed(node: Any, found: Mapping[str, str]) -> Any:
    return node if node.address is not None else replace(node, address=found[node.name])


def _wants(needs: Iterable[Need], free: Mapping[str, float]) -> str:
    total: Counter[str] = Counter()
    for need in needs:
        total.update(need.resources)
    return ", ".join(f"{n:g} {r}, free {free.get(r, 0.0):g}" for r, n in sorted(total.items()))
