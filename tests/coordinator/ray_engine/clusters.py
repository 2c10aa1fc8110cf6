"""Clusters of several machines that are all this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from coordinator.ray_engine.library import load_ray

#: A lost machine is noticed in seconds instead of a quarter of a minute; a slow one is not lost.
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 4,
    "worker_niceness": 0,
}
_STORE_BYTES = 80 << 20


@contextmanager
def running_cluster(machines: int, cpus: int, **resources: float) -> Iterator[Any]:
    """A Ray cluster; the first machine is its head and has the resources."""
    load_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": cpus,
            "resources": resources,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_system_config": QUICK,
        },
    )
    try:
        for _ in range(machines - 1):
            add_machine(cluster, cpus)
        yield cluster
    finally:
        cluster.shutdown()


def add_machine(cluster: Any, cpus: int) -> Any:
    """Another machine with that many processors."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=_STORE_BYTES)
