"""Ray itself: imported when it is needed, connected without a dashboard or usage reports."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ragschema.errors import InvalidInput, Unavailable

NAMESPACE: Final = "ragrig"
#: Custom resource of a machine: FPGA cards that ragrig may program.
FPGA: Final = "fpga"
_LOCAL: Final = "local"
_START_S: Final = "180"
_CARDS: Final = "/dev/xclmgmt*"


@dataclass(frozen=True)
class Connection:
    """A cluster to talk to.

    Attributes:
        ray: the module, connected.
        alone: the cluster is this machine, and was started for this connection.
    """

    ray: Any
    alone: bool


def load_ray() -> Any:
    """The module ``ray``; nothing of it has been started.

    Raises:
        InvalidInput: it is not installed.
    """
    # Read when Ray is imported: it must not tell anybody that it is used.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # The first start on a busy machine reads hundreds of megabytes: half a minute is too short.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", _START_S)
    os.environ.setdefault("RAY_raylet_start_wait_time_s", _START_S)
    try:
        import ray
        import ray.exceptions
        import ray.util.placement_group
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise InvalidInput(
            "Ray is not installed",
            field="engine",
            hint="pip install 'ragrig[ray]', on every machine of the cluster",
        ) from error
    return ray


def cards_here() -> dict[str, float]:
    """The custom resources of this machine."""
    return {FPGA: float(len(glob.glob(_CARDS)))}


@contextlib.contextmanager
def connected(
    address: str | None, resources: Mapping[str, float] | None = None
) -> Iterator[Connection]:
    """Ray, connected to a cluster for the length of the block.

    Args:
        address: host:port of a cluster's head; None: the cluster that RAY_ADDRESS or this
            machine has, or else one of this machine alone for as long as the block lasts.
        resources: custom ones of this machine, for a cluster that is started here.

    Raises:
        InvalidInput: Ray is not installed.
        Unavailable: nothing answers at the address, or no cluster can be started.
    """
    ray = load_ray()
    common: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "configure_logging": False,
        "logging_level": logging.WARNING,
    }
    alone = False
    try:
        if address not in (None, _LOCAL):
            ray.init(address=address, **common)
        elif address == _LOCAL or not _found(ray, common):
            alone = True
            _start_here(ray, common, resources)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise Unavailable(
            f"no Ray cluster answers at {address or 'this machine'}: {error}",
            field="ray_address",
            hint="start one with `ray start --head`, or leave --ray-address out",
        ) from error
    try:
        yield Connection(ray, alone)
    finally:
        ray.shutdown()


def _found(ray: Any, common: dict[str, Any]) -> bool:
    """Whether there was a cluster to connect to."""
    try:
        ray.init(address="auto", **common)
    except ConnectionError:
        return False
    return True


def _start_here(ray: Any, common: dict[str, Any], resources: Mapping[str, float] | None) -> None:
    ray.init(
        address=_LOCAL,
        include_dashboard=False,
        num_cpus=len(os.sched_getaffinity(0)),
        resources=dict(resources or {}),
        # Ray's workers, and what they start, otherwise yield to everything else.
        _system_config={"worker_niceness": 0},
        **common,
    )
