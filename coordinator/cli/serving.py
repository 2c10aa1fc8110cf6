"""Waiting until a running rig serves a freshly committed state."""

from __future__ import annotations

import time

from coordinator.cli.rest import RestClient
from coordinator.cli.target import Target
from ragschema.errors import DeadlineExceeded, NotFound

_POLL_S = 0.1


def wait_served(target: Target, collection: str, generation: int, timeout_s: float = 60.0) -> None:
    """Returns once the coordinator's snapshot is at least of this generation.

    Raises:
        DeadlineExceeded: it is not after ``timeout_s``, saying what it serves.
        Unavailable: the coordinator is gone.
    """
    give_up_s = time.monotonic() + timeout_s
    with RestClient(target) as client:
        while True:
            serving = _serving(client, collection)
            if isinstance(serving, int) and serving >= generation:
                return
            if time.monotonic() > give_up_s:
                raise DeadlineExceeded(
                    f"after {timeout_s:g} s it serves {serving}, not generation {generation}",
                    hint="see `ragrig status` and the coordinator's log",
                )
            time.sleep(_POLL_S)


def _serving(client: RestClient, collection: str) -> int | str:
    """The generation served, or why there is none."""
    try:
        found = client.get(f"/v1/collections/{collection}")
    except NotFound:
        return "nothing"
    if found["error"]:
        return str(found["error"])
    return int(found["generation"])
