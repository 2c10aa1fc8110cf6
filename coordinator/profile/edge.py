"""The coordinator's own share: what a REST search takes beside its stages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx

from coordinator.profile.collection import NAME
from coordinator.profile.probe import Call, Kind, Probe, Reading
from coordinator.profile.searching import CALL_S
from ragschema.errors import RagrigError, UpstreamError
from ragschema.types import F32

#: Stages that are measured by themselves; what is left is the coordinator's.
_STAGES: Final = ("embed_ms", "probe_ms", "scan_ms")
_LEAST_S: Final = 1e-6


def coordinator_probe(http: httpx.AsyncClient, queries: F32, hits: Sequence[int]) -> Probe:
    """A search by vector through REST, less choosing lists and the scan with its call.

    What is left: HTTP, JSON, queues, merging, texts. ``k`` rows come back.
    """
    kind = Kind("coordinator", "search", 1, {"dim": float(queries.shape[1])}, ("1", "k"))
    return Probe((kind,), tuple(_call(http, queries, k) for k in hits))


def _call(http: httpx.AsyncClient, queries: F32, k: int) -> Call:
    bodies: list[dict[str, Any]] = [
        {"collection": NAME, "vector": query.tolist(), "k": k} for query in queries[:16]
    ]
    asked = 0

    async def call() -> Mapping[str, Reading]:
        nonlocal asked
        body = bodies[asked % len(bodies)]
        asked += 1
        started_s = time.perf_counter()
        timings = await _timings(http, body)
        passed_s = time.perf_counter() - started_s
        inside_s = sum(timings.get(stage) or 0.0 for stage in _STAGES) / 1e3
        return {"coordinator": Reading({"k": float(k)}, max(_LEAST_S, passed_s - inside_s))}

    return call


async def _timings(http: httpx.AsyncClient, body: Mapping[str, Any]) -> Mapping[str, float]:
    try:
        reply = await http.post("/v1/search", json=body, timeout=CALL_S)
    except httpx.HTTPError as error:
        raise UpstreamError(f"/v1/search: {error or type(error).__name__}") from error
    if reply.status_code != httpx.codes.OK:
        raise UpstreamError(f"/v1/search answered {reply.status_code}: {reply.text[:200]}")
    found: Mapping[str, float] = reply.json()["timings"]
    return found


async def wait_searchable(
    http: httpx.AsyncClient, collection: str, query: F32, timeout_s: float
) -> None:
    """Returns once a collection answers; raises what it said last."""
    body = {"collection": collection, "vector": query.tolist(), "k": 1}
    give_up_s = time.monotonic() + timeout_s
    while True:
        try:
            await _timings(http, body)
            return
        except RagrigError:
            if time.monotonic() > give_up_s:
                raise
        await asyncio.sleep(0.1)
