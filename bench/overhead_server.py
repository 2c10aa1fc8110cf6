"""The coordinator with two empty routes beside its own, for ``bench.overhead``.

Started by the supervisor in place of ``python -m coordinator``. The same
process, event loop and uvicorn server answer:

- ``GET /bench/empty``: a route of a plain FastAPI application that does nothing,
- ``GET /bench/edge``: the same inside the coordinator's application, behind its
  trace ids, admission and access metrics,
- everything else: the coordinator.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

import coordinator.__main__ as coordinator_main
import coordinator.rest.app as rest_app
from coordinator.auth import ApiKey
from coordinator.jobs.runner import JobRunner
from coordinator.runtime import Runtime

EMPTY_PATH = "/bench/empty"
EDGE_PATH = "/bench/edge"


async def empty() -> dict[str, str]:
    """What costs a framework the least."""
    return {}


class Beside:
    """Sends one path to an application of its own, the rest to the coordinator."""

    def __init__(self, plain: ASGIApp, coordinator: ASGIApp) -> None:
        self._plain = plain
        self._coordinator = coordinator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = self._plain if scope.get("path") == EMPTY_PATH else self._coordinator
        await here(scope, receive, send)


def main() -> None:
    """Runs the coordinator's own command line with one function wrapped."""
    create_app = rest_app.create_app

    def with_empty_routes(runtime: Runtime, jobs: JobRunner, api_key: ApiKey | None) -> ASGIApp:
        app = create_app(runtime, jobs, api_key)
        app.add_api_route(EDGE_PATH, empty, methods=["GET"])
        plain = FastAPI()
        plain.add_api_route(EMPTY_PATH, empty, methods=["GET"])
        return Beside(plain, app)

    rest_app.create_app = with_empty_routes  # type: ignore[assignment]
    coordinator_main.main()


if __name__ == "__main__":
    main()
