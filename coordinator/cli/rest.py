"""The command's REST client: typed errors, streamed events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from coordinator.cli.target import START_HINT, Target
from ragschema.errors import (
    DeadlineExceeded,
    RagrigError,
    Unavailable,
    UpstreamError,
    all_error_types,
)

_TIMEOUT = httpx.Timeout(660.0, connect=5.0)
Json = Mapping[str, Any]


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event."""

    event: str
    data: Json


class RestClient:
    """Talks to one coordinator; every failure is one of our errors."""

    def __init__(self, target: Target, timeout: httpx.Timeout = _TIMEOUT) -> None:
        headers = {"authorization": f"Bearer {target.api_key}"} if target.api_key else {}
        self._url = target.url
        # Proxies are for the outside; a rig is on this machine or its network.
        self._http = httpx.Client(
            base_url=target.url, headers=headers, timeout=timeout, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str) -> Json:
        """The JSON object at a path; also of a 503 that carries one, as /readyz does."""
        with self._failures():
            return _object(self._http.get(path))

    def post(self, path: str, body: Json) -> Json:
        """Sends and receives a JSON object."""
        with self._failures():
            return _object(self._http.post(path, json=body))

    def stream(self, path: str, body: Json) -> Iterator[ServerEvent]:
        """Events of a streamed answer; an ``error`` event is raised.

        Raises:
            UpstreamError: the stream broke off before its ``done`` event.
        """
        with self._failures(), self._http.stream("POST", path, json=body) as reply:
            if reply.status_code != httpx.codes.OK:
                reply.read()
                raise _error_of(reply)
            for event in parse_events(reply.iter_lines()):
                if event.event == "error":
                    raise _typed(event.data.get("error", event.data))
                yield event
                if event.event == "done":
                    return
        raise UpstreamError("the answer broke off", hint="see the coordinator's log")

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unavailable(f"no rig is running at {self._url}", hint=START_HINT) from error
        except httpx.TimeoutException as error:
            raise DeadlineExceeded(f"{self._url} did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            detail = str(error) or type(error).__name__
            raise UpstreamError(f"{self._url}: {detail}") from error


def _object(reply: httpx.Response) -> Json:
    if reply.status_code != httpx.codes.OK:
        raise _error_of(reply)
    body = _parsed(reply)
    if body is None:
        raise UpstreamError(
            f"{reply.url} did not answer with a JSON object", hint="is that a ragrig coordinator?"
        )
    return body


def _parsed(reply: httpx.Response) -> Json | None:
    try:
        body = reply.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _error_of(reply: httpx.Response) -> RagrigError:
    body = _parsed(reply)
    if body is not None and isinstance(body.get("error"), dict):
        return _typed(body["error"])
    return UpstreamError(
        f"{reply.url} answered {reply.status_code}", hint="is that a ragrig coordinator?"
    )


def _typed(raw: Json) -> RagrigError:
    cls = all_error_types().get(str(raw.get("type")), UpstreamError)
    return cls(
        str(raw.get("message", "unknown error")),
        field=raw.get("field"),
        hint=raw.get("hint"),
        trace_id=raw.get("trace_id"),
    )


def parse_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Server-sent events of JSON objects; comments and unknown fields are skipped."""
    name, data = "message", ""
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(name, _event_object(data))
            name, data = "message", ""
        elif line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data += line.removeprefix("data:").removeprefix(" ")


def _event_object(data: str) -> Json:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise UpstreamError("the server sent an event that is not JSON") from error
    if not isinstance(body, dict):
        raise UpstreamError("the server sent an event that is not a JSON object")
    return body
