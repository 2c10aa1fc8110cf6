"""Does a rig on a Ray cluster lose requests when a machine dies, or when another plan takes over?

A cluster of two machines, both of them this one, and a plan that runs twice: two replicas
of every node, on different machines. Clients ask in a closed loop while

1. every process of one machine is killed at once (its raylet, actors and node processes), and
2. another plan is deployed in place of the one that runs, after a new machine has joined.

``lost_requests`` counts answers that were not whole, of both. ``recovery_s`` is from the kill
until every node serves again, on the machine that is left; ``noticed_s`` until the first one of
those that died was no longer asked. Ray by its defaults needs about 15 s to give a machine up;
``--quick-detection`` asks every half second instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import yaml

from bench.common import emit, machine, note, options, typed_failures
from bench.llm_model import save_model, split_words
from bench.scaleout_load import ClosedLoop, summary
from coordinator.cli.up_ray import planned_on_ray
from coordinator.ray_engine.engine import RayEngine
from coordinator.ray_engine.library import load_ray
from coordinator.ray_engine.run import run_on_ray
from coordinator.supervisor.node import NodeView
from ragschema.errors import Cancelled, DeadlineExceeded, InternalError, UpstreamError
from ragschema.here import this_machine
from ragschema.local import local_pool
from ragschema.planner.assemble import SearchSpace
from ragschema.planner.axes import Objective
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.plan import make_plan
from ragschema.planner.plan_file import write_plan
from ragschema.planner.problem import Decoding
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.workload import load_schema

_COLLECTION: Final = "notes"
_DOCUMENTS: Final = 240
_MACHINE: Final = {"num_cpus": 8, "object_store_memory": 80 << 20}
_PATIENCE_S: Final = 240.0
_TOKENS: Final = 16
_SHAPE: Final = {
    "vocab_size": 2000,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
_QUICK: Final = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 4,
}


@dataclass(frozen=True)
class Scale:
    """How long to look, and at what.

    Attributes:
        clients: requests under way at once.
        steady_s: before the machine dies, and after everything is back.
    """

    clients: int
    steady_s: float
    quick_detection: bool


@dataclass(frozen=True)
class Machines:
    """The cluster; ``doomed`` is the machine that dies."""

    cluster: Any
    doomed: Any


@contextlib.contextmanager
def _machines(quick: bool) -> Iterator[Machines]:
    load_ray()
    from ray.cluster_utils import Cluster

    config = {"worker_niceness": 0, **(_QUICK if quick else {})}
    head = {**_MACHINE, "include_dashboard": False, "_system_config": config}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield Machines(cluster, cluster.add_node(**_MACHINE))
    finally:
        cluster.shutdown()


def _plan(folder: Path, seed: int) -> Path:
    """Two plan files of one workload: the second one has smaller batches and two shards."""
    save_model(folder / "writer", _SHAPE, seed)
    split_words(folder / "writer", _SHAPE["vocab_size"])
    schema = folder / "schema.yaml"
    workload = {
        "version": 1,
        "name": "scaleout",
        "generator": {"model": str(folder / "writer" / "config.json"), "weights": "fp32"},
        "lengths": {"question": 12, "prompt": 200, "output": _TOKENS},
        "database": {"vectors": 1000, "dims": 384, "bytes_per_vector": 48, "index": "ivfpq",
                     "nlist": 16, "scan_share": 0.5},
    }  # fmt: skip
    schema.write_text(yaml.safe_dump(workload), encoding="utf-8")
    # Two machines share this one.
    half = replace(this_machine(), cores=max(1, this_machine().cores // 2))
    pool = local_pool(half, None, False)
    space = SearchSpace(decoding=Decoding.TOGETHER)
    made = make_plan(load_schema(schema), pool, Objective.MAX_QPS_PER_CHIP, space)
    if isinstance(made, Infeasible):
        raise InternalError(f"no plan for this machine: {made.binding}")
    path = folder / "plan.yaml"
    write_plan(made, path)
    wider = yaml.safe_load(path.read_text(encoding="utf-8"))
    for group in wider["groups"]:
        for stage in group["stages"]:
            if stage["name"] == "retrieval":
                stage["hosts"] = 2
            elif stage["name"] == "decode":
                stage["batch"] = max(1, stage["batch"] // 2)
    (folder / "wider.yaml").write_text(yaml.safe_dump(wider), encoding="utf-8")
    return path


def _rig(folder: Path) -> RigConfig:
    rig = RigConfig(
        name="scaleout",
        data_dir=str(folder / "data"),
        replicas=2,
        llm_nodes=(LlmNodeConfig("llm", generator=f"hf:{folder / 'writer'}"),),
        retrieval_nodes=tuple(RetrievalNodeConfig(f"ret-{i}", backend="simd") for i in range(2)),
    )
    return replace(rig, coordinator=replace(rig.coordinator, port=0))


def _documents() -> list[dict[str, Any]]:
    animals, places = ("otter", "heron", "lynx", "tapir", "gecko", "yak"), ("mill", "barn", "tower")
    return [
        {
            "id": f"note-{n}",
            "text": f"Note {n}: on day {n} a {animals[n % 6]} was seen near the {places[n % 3]},"
            f" and it stayed for {n % 17 + 1} hours before it left for the river.",
        }
        for n in range(_DOCUMENTS)
    ]


async def _ingest(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False) as client:
        (await client.post("/v1/collections", json={"name": _COLLECTION})).raise_for_status()
        path = f"/v1/collections/{_COLLECTION}/documents"
        reply = await client.post(path, json={"documents": _documents()})
        job = reply.raise_for_status().json()
        give_up_s = time.monotonic() + _PATIENCE_S
        while job["state"] not in ("done", "failed"):
            if time.monotonic() > give_up_s:
                raise DeadlineExceeded("the collection was not made in time")
            await asyncio.sleep(0.1)
            job = (await client.get(f"/v1/jobs/{job['id']}")).raise_for_status().json()
        if job["state"] != "done":
            raise UpstreamError(f"the collection was not made: {job['error']}")


def _kill(machines: Machines) -> frozenset[int]:
    """Ends every process of the doomed machine at once; their ids."""
    raylet = psutil.Process(machines.doomed.all_processes["raylet"][0].process.pid)
    family = [raylet, *raylet.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    machines.cluster.remove_node(machines.doomed, allow_graceful=False)
    return frozenset(process.pid for process in family)


class Recovery:
    """Watches a rig from the kill on.

    Attributes:
        noticed_s: until a node that died was not asked any more; None: not yet.
        lost_nodes: names of nodes that died.
    """

    def __init__(self, engine: RayEngine, url: str, dead: frozenset[int]) -> None:
        self.noticed_s: float | None = None
        self.lost_nodes = sorted(v.name for v in engine.views() if v.pid in dead)
        self._engine = engine
        self._url = url
        self._dead = dead

    async def done(self, since_s: float) -> float:
        """Seconds until every node serves again, where the coordinator asks it."""
        async with httpx.AsyncClient(base_url=self._url, timeout=10.0, trust_env=False) as client:
            while (now_s := time.monotonic() - since_s) < _PATIENCE_S:
                asked = (await client.get("/readyz")).json()["dependencies"]
                if self.noticed_s is None and not all(node["ready"] for node in asked):
                    self.noticed_s = now_s
                alive = all(v.pid is not None and v.pid not in self._dead for v in self._views())
                there = {v.address for v in self._views()}
                if alive and all(n["ready"] and n["address"] in there for n in asked):
                    return now_s
                await asyncio.sleep(0.05)
        raise DeadlineExceeded(f"the nodes are not back after {_PATIENCE_S:g} s")

    def _views(self) -> tuple[NodeView, ...]:
        return self._engine.views()[1:]


async def _measure(
    engine: RayEngine, machines: Machines, scale: Scale, wider: RigConfig
) -> dict[str, Any]:
    note("starting the nodes")
    began_s = time.monotonic()
    readiness = await engine.start()
    deployed_s = time.monotonic() - began_s
    watching = asyncio.ensure_future(engine.watch())
    await _ingest(readiness.url)
    texts = [document["text"][:60] for document in _documents()]
    load = ClosedLoop(readiness.url, _COLLECTION, texts, _TOKENS)
    load.start(scale.clients)
    await load.answered(4 * scale.clients)  # everything is warm
    from_s = time.monotonic()
    await asyncio.sleep(scale.steady_s)
    note("killing a machine")
    killed_s = time.monotonic()
    dead = await asyncio.to_thread(_kill, machines)
    recovery = Recovery(engine, readiness.url, dead)
    recovery_s = await recovery.done(killed_s)
    back_s = time.monotonic()
    await asyncio.sleep(scale.steady_s)
    steady_s = time.monotonic()
    note("deploying another plan, on the machine that is left and a new one")
    # Ray insists on the main thread; clients wait meanwhile.
    machines.cluster.add_node(**_MACHINE)
    moving_s = time.monotonic()
    await engine.move_to(wider)
    moved_s = time.monotonic()
    await asyncio.sleep(scale.steady_s)
    await load.stop()
    end_s = time.monotonic()
    watching.cancel()
    return {
        "lost_requests": sum(a.problem is not None for a in load.answers),
        "requests": len(load.answers),
        "recovery_s": round(recovery_s, 1),
        "noticed_s": None if recovery.noticed_s is None else round(recovery.noticed_s, 2),
        "lost_nodes": recovery.lost_nodes,
        "deploy_s": round(deployed_s, 1),
        "another_plan_s": round(moved_s - moving_s, 1),
        "before": summary(load.answers, from_s, killed_s),
        "recovering": summary(load.answers, killed_s, back_s),
        "recovered": summary(load.answers, back_s, steady_s),
        "changing_plan": summary(load.answers, moving_s, moved_s),
        "on_the_other_plan": summary(load.answers, moved_s, end_s),
        "nodes": [v.name for v in engine.views()],
    }


def figures(scale: Scale, seed: int) -> dict[str, Any]:
    """Everything this benchmark measures."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ragrig-bench-")))
        plan = _plan(folder, seed)
        rig = _rig(folder)
        wider = planned_on_ray(folder / "wider.yaml", rig)
        machines = stack.enter_context(_machines(scale.quick_detection))
        result: dict[str, Any] = {}

        async def body(engine: RayEngine) -> None:
            result.update(await _measure(engine, machines, scale, wider))

        planned = planned_on_ray(plan, rig)
        if not run_on_ray(planned, machines.cluster.address, _told, body):
            raise Cancelled("stopped by a signal")
        return result


def _told(view: NodeView) -> None:
    note(f"{view.name}: {view.state.value} {view.note}".rstrip())


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--clients", type=int, default=4, help="requests under way at once")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each steady phase")
    parser.add_argument("--seed", type=int, default=1, help="of the model's weights")
    parser.add_argument(
        "--quick-detection", action="store_true", help="ask machines twice a second"
    )
    given = parser.parse_args()
    scale = Scale(given.clients, given.seconds, given.quick_detection)
    result = figures(scale, given.seed)
    told = {"clients": scale.clients, "replicas": 2, "quick_detection": scale.quick_detection}
    emit({**result, **told, "ray": metadata.version("ray"), "machine": machine()}, given)


if __name__ == "__main__":
    with typed_failures():
        main()
