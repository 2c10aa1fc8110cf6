"""Clusters of several machines that are all this one.

Ray forks, and runs Python in what it forked. The process of the tests has gRPC's threads, whose
locks such a child may inherit locked: it then waits forever. So a cluster has a process of its
own, which is told by lines what to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

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
_ADD = "add"
_LOSE = "lose"
_STOP_S = 60.0


class ClusterHandle:
    """A cluster in a process of its own.

    Attributes:
        address: host:port of its head.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._heard()

    def add_machine(self) -> None:
        """Another machine like the others."""
        self._tell(_ADD)

    def lose_machine(self) -> None:
        """The machine that was added last is gone at once, with all that it ran."""
        self._tell(_LOSE)

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        print(word, file=self._process.stdin, flush=True)
        assert self._heard() == word

    def _heard(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the cluster's process ended with {self._process.wait()}")
        return line.strip()


@contextmanager
def running_cluster(machines: int, cpus: int) -> Iterator[ClusterHandle]:
    """A Ray cluster of machines of so many processors; the first one is its head.

    Raises:
        RuntimeError: it does not start; the process has told why on standard error.
    """
    command = [sys.executable, "-m", __name__, str(cpus)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        handle = ClusterHandle(process)
        for _ in range(machines - 1):
            handle.add_machine()
        yield handle
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """It stops its cluster when it hears no more; it is killed when even that takes too long."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _serve(cpus: int, heard: IO[str], said: IO[str]) -> None:
    """The cluster's own process: one line is answered for every line that it hears."""
    load_ray()
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_system_config": QUICK,
        },
    )
    added = []
    try:
        print(cluster.address, file=said, flush=True)
        for line in heard:
            word = line.strip()
            if word == _ADD:
                added.append(cluster.add_node(num_cpus=cpus, object_store_memory=_STORE_BYTES))
            else:
                assert word == _LOSE, word
                cluster.remove_node(added.pop(), allow_graceful=False)
            print(word, file=said, flush=True)
    finally:
        cluster.shutdown()


def main() -> None:
    """Serve one cluster; Ray's own words go to standard error, not among the answers."""
    (cpus,) = sys.argv[1:]
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(int(cpus), sys.stdin, said)


if __name__ == "__main__":
    main()
