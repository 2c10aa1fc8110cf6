"""The outermost layer: trace ids, keys, admission, errors and access metrics.

Plain ASGI and no task of its own: it runs for every request, so it is kept to
a few dictionary look-ups.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.auth import ApiKey, offered_key
from coordinator.rest.call import SCOPE_KEY, Exchange, Services
from coordinator.rest.edge_metrics import EdgeMetrics
from coordinator.rest.errors import Problem, hidden_defect, problem_of, routing_error
from coordinator.rest.route import EdgeRoute
from ragschema.errors import Overloaded, PayloadTooLarge, RagrigError, Unauthenticated

log = logging.getLogger(__name__)

_TRACE_ID = re.compile(rb"[0-9a-f]{16}(?:[0-9a-f]{16})?")
#: Answered without a key, and even when every slot is taken.
_HEALTH = frozenset({"/healthz", "/health", "/readyz"})
#: What counts as a question that came, even where it is refused.
_QUESTIONS = frozenset({"/v1/query", "/v1/chat/completions"})
_NEVER_REFUSED = _HEALTH | {"/metrics", "/v1/status"}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
_LINGER_S = 1.0
_LINGER_BYTES = 4 << 20


class Edge:
    """Wraps the router; every error below it leaves as the one error body.

    Args:
        routes: asked which methods a path takes, for ``Allow``.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: list[BaseRoute],
        services: Services,
        key: ApiKey | None,
        metrics: EdgeMetrics,
    ) -> None:
        self._app = app
        self._routes = routes
        # A path without parameters needs no search through the routes.
        self._exact = {
            (method, route.path): route
            for route in routes
            if isinstance(route, EdgeRoute) and not route.param_convertors
            for method in route.methods or ()
        }
        self._services = services
        self._key = key
        self._metrics = metrics
        self._inflight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        headers = dict(scope["headers"])
        exchange = Exchange(self._services, headers, _trace_id(headers))
        scope[SCOPE_KEY] = exchange
        trace_header = (b"x-trace-id", exchange.trace_id.encode("ascii"))

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], trace_header]
            await send(message)

        self._inflight += 1
        try:
            self._admit(scope["path"], headers)
            app = self._app
            route = self._exact.get((scope["method"], scope["path"]))
            if route is not None:
                scope["route"], scope["path_params"] = route, {}
                app = route.app
            await app(scope, receive, tagged)
        except Exception as error:  # noqa: BLE001  the last line before the wire
            await self._refuse(error, exchange, scope, receive, tagged)
        finally:
            self._inflight -= 1
            self._account(scope, exchange, started_s)

    def _account(self, scope: Scope, exchange: Exchange, started_s: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        seconds = time.perf_counter() - started_s
        self._metrics.finished(route, scope["method"], exchange.status or 499, seconds)
        self._metrics.inflight.set(self._inflight)
        if exchange.error_type is not None:
            self._metrics.failed(exchange.error_type)

    def _admit(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._key is None:
            _check_origin(headers)
        elif path not in _HEALTH:
            self._check_key(self._key, headers)
        most = self._services.limits.max_inflight
        if self._inflight > most and path not in _NEVER_REFUSED:
            if path in _QUESTIONS:
                self._services.runtime.metrics.workload.arrived()
            raise Overloaded(
                f"{most} requests are under way",
                retry_after_s=1.0,
                hint="try again later, or raise coordinator.limits.max_inflight",
            )

    def _check_key(self, key: ApiKey, headers: dict[bytes, bytes]) -> None:
        offered = offered_key(headers)
        if offered is None:
            raise Unauthenticated(
                "this server wants an API key", hint="send Authorization: Bearer KEY"
            )
        if not key.matches(offered):
            raise Unauthenticated("the API key is wrong", hint="ask whoever runs this server")

    async def _refuse(
        self, error: Exception, exchange: Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        allow = ""
        if isinstance(error, HTTPException):
            allow = self._allowed(scope) if error.status_code == 405 else ""
            error = routing_error(error, scope["path"], allow)
        if not isinstance(error, RagrigError):
            log.error("defect, trace %s", exchange.trace_id, exc_info=error)
            error = hidden_defect()
        exchange.error_type = error.type_name
        problem = problem_of(error, exchange.trace_id)
        if problem.status >= 500:
            log.warning("answered %d, trace %s: %s", problem.status, exchange.trace_id, error)
        if exchange.status:
            return  # too late for a status; the server ends the connection
        if allow:
            problem.headers.append((b"allow", allow.encode("ascii")))
        linger = isinstance(error, PayloadTooLarge) and not exchange.body_done
        await _send_problem(problem, linger, receive, send)

    def _allowed(self, scope: Scope) -> str:
        probes = ({**scope, "method": method} for method in _METHODS)
        return ", ".join(
            cast(str, probe["method"])
            for probe in probes
            if any(route.matches(probe)[0] is Match.FULL for route in self._routes)
        )


def _trace_id(headers: dict[bytes, bytes]) -> str:
    offered = headers.get(b"x-trace-id")
    if offered is not None and _TRACE_ID.fullmatch(offered):
        return offered.decode("ascii")
    return secrets.token_hex(8)


def _check_origin(headers: dict[bytes, bytes]) -> None:
    """Keeps web pages from using a keyless local server through its user's browser."""
    origin = headers.get(b"origin")
    if origin is None:
        return
    try:
        host = urlsplit(origin.decode("latin-1")).hostname
    except ValueError:
        host = None
    if host not in _LOOPBACK:
        raise Unauthenticated(
            "a web page of another origin may not use a server without an API key",
            field="origin",
            hint="start the server with --api-key-file and send the key",
        )


async def _send_problem(problem: Problem, linger: bool, receive: Receive, send: Send) -> None:
    headers: list[Any] = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(problem.body)),
        *problem.headers,
    ]
    if linger:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem.body, "more_body": linger})
    if linger:
        await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    """Reads on a little before closing, so that the answer is not lost in a reset."""
    left = _LINGER_BYTES
    try:
        async with asyncio.timeout(_LINGER_S):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
