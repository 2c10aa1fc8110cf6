"""What a deployment makes of its actors' answers; Ray's part is played by a stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.ray_engine.actor import view_to_dict
from coordinator.ray_engine.deployment import RayDeployment, RayOptions
from coordinator.supervisor.node import NodeState, NodeView
from ragschema.errors import IncompatibleRequest, Unavailable
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig

RIG = RigConfig(
    llm_nodes=(LlmNodeConfig("llm"), LlmNodeConfig("far", address="10.0.0.9:1")),
    retrieval_nodes=(RetrievalNodeConfig("ret"),),
)
QUICK = RayOptions(look_s=0.01, answer_s=0.05, place_s=0.05, start_s=0.3, stop_s=0.05)


class GoneError(Exception):
    """As Ray raises it."""


class Actor:
    """Answers with ``now``, or not at all."""

    def __init__(self, now: Callable[[], NodeView | None]) -> None:
        self.stops = 0
        self.view = SimpleNamespace(remote=self._view)
        self.stop = SimpleNamespace(remote=self._stop)
        self._now = now

    async def _view(self) -> dict[str, Any]:
        view = self._now()
        if view is None:
            raise GoneError
        return view_to_dict(view)

    async def _stop(self) -> None:
        self.stops += 1


class FakeRay:
    """A cluster of one machine with four processors.

    Attributes:
        says: what each node's actor answers, by the order of their start.
    """

    def __init__(self, placed: bool = True) -> None:
        self.says: list[NodeView | None] = [view("llm", "h:1"), view("ret", "h:2")]
        self.actors: list[Actor] = []
        self.killed: list[Any] = []
        self.groups = 0
        self._placed = placed
        self.exceptions = SimpleNamespace(RayError=GoneError)
        self.util = SimpleNamespace(
            placement_group=self._group,
            remove_placement_group=self._remove,
            placement_group_table=lambda group: {
                "bundles_to_node_id": {0: "n1", 1: "n1"},
                "bundles": {0: {"CPU": 1.0}, 1: {"CPU": 1.0}},
            },
            scheduling_strategies=SimpleNamespace(PlacementGroupSchedulingStrategy=dict),
        )

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": "n1", "Alive": True, "Resources": {"CPU": 4.0}},
            {"NodeID": "n0", "Alive": False, "Resources": {"CPU": 99.0}},
        ]

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, _cls: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._actor))

    def kill(self, actor: Actor, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor)

    def _actor(self, order: str) -> Actor:
        assert isinstance(order, str), "plain data"
        number = len(self.actors)
        self.actors.append(Actor(lambda: self.says[number]))
        return self.actors[-1]

    def _group(self, bundles: list[dict[str, float]], strategy: str) -> Any:
        assert bundles == [{"CPU": 1.0}, {"CPU": 1.0}]
        self.groups += 1

        async def ready() -> None:
            await asyncio.sleep(0 if self._placed else 60)

        return SimpleNamespace(ready=ready)

    def _remove(self, _group: Any) -> None:
        self.groups -= 1


def view(name: str, address: str | None, state: NodeState = NodeState.READY) -> NodeView:
    kind: Any = "llm" if name == "llm" else "retrieval"
    return NodeView(name, kind, state, address, 7)


def deployment(ray: FakeRay, rig: RigConfig = RIG) -> tuple[RayDeployment, list[NodeView]]:
    told: list[NodeView] = []
    return RayDeployment(ray, rig, 1, told.append, QUICK), told


async def test_addresses_come_from_the_actors_and_stay_while_one_is_away() -> None:
    ray = FakeRay()
    made, told = deployment(ray)
    await made.start()
    rig = made.resolved()
    assert [n.address for n in rig.llm_nodes] == ["h:1", "10.0.0.9:1"]
    assert rig.retrieval_nodes[0].address == "h:2"
    ray.says[1] = None
    assert not await made.look()
    away = made.views["ret"]
    assert (away.state, away.address, away.pid) == (NodeState.BACKING_OFF, "h:2", None)
    assert made.resolved() == rig, "the coordinator waits for it where it was"
    ray.says[1] = view("ret", None, NodeState.STARTING)
    assert not await made.look()
    assert made.views["ret"].address == "h:2"
    ray.says[1] = view("ret", "g:9")
    assert await made.look()
    assert made.resolved().retrieval_nodes[0].address == "g:9"
    assert made.views["ret"].restarts == 1
    assert [v.state for v in told if v.name == "ret"] == [
        NodeState.READY, NodeState.BACKING_OFF, NodeState.STARTING, NodeState.READY,
    ]  # fmt: skip
    await made.stop()
    assert [actor.stops for actor in ray.actors] == [1, 1]
    assert (len(ray.killed), ray.groups) == (2, 0)


async def test_what_does_not_fit_reserves_nothing() -> None:
    ray = FakeRay()
    wide = RigConfig(llm_nodes=(LlmNodeConfig("llm", threads=5),), retrieval_nodes=())
    made, _ = deployment(ray, wide)
    with pytest.raises(IncompatibleRequest, match="needs 5 processors, the cluster has 4"):
        await made.start()
    assert (ray.groups, ray.actors) == (0, [])


async def test_beside_another_deployment_there_is_less() -> None:
    ray = FakeRay()
    first, _ = deployment(ray)
    await first.start()
    wide = RigConfig(llm_nodes=(LlmNodeConfig("llm", threads=3),), retrieval_nodes=())
    second, _ = deployment(ray, wide)
    with pytest.raises(IncompatibleRequest, match="needs 3 processors, the cluster has 2"):
        await second.start(first)


async def test_what_others_hold_is_waited_for_and_told() -> None:
    ray = FakeRay(placed=False)
    made, _ = deployment(ray)
    with pytest.raises(IncompatibleRequest, match="2 CPU, free 1"):
        await made.start()
    assert (ray.groups, ray.actors) == (0, [])


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (view("ret", None, NodeState.STARTING), "ret did not start within 0.3 s"),
        (None, "ret did not start within 0.3 s"),
    ],
)
async def test_a_node_that_never_serves(said: NodeView | None, why: str) -> None:
    ray = FakeRay()
    ray.says[1] = said
    made, told = deployment(ray)
    with pytest.raises(Unavailable, match=why):
        await made.start()
    assert {v.state for v in told if v.name == "ret"} == {NodeState.STARTING}
    await made.stop()


async def test_a_node_that_gave_up_ends_the_start() -> None:
    ray = FakeRay()
    ray.says[0] = NodeView("llm", "llm", NodeState.FAILED, None, None, 0, "no model in /nowhere")
    made, _ = deployment(ray)
    with pytest.raises(Unavailable, match="no model in /nowhere"):
        await made.start()
