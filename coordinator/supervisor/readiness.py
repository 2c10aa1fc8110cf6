"""Is the rig ready to answer? Asked over REST, as a load balancer would."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import httpx

_POLL_S = 0.1


@dataclass(frozen=True)
class Readiness:
    """What ``/readyz`` said last; ``problem`` is empty when ready."""

    url: str
    ready: bool
    problem: str = ""


async def wait_ready(url: str, timeout_s: float) -> Readiness:
    """Polls ``/readyz`` until it is good or ``timeout_s`` have passed."""
    give_up_s = time.monotonic() + timeout_s
    async with httpx.AsyncClient(base_url=url, timeout=10.0, trust_env=False) as client:
        while True:
            problem = await _probe(client)
            if problem is None:
                return Readiness(url, ready=True)
            if time.monotonic() > give_up_s:
                return Readiness(url, ready=False, problem=problem)
            await asyncio.sleep(_POLL_S)


async def _probe(client: httpx.AsyncClient) -> str | None:
    try:
        reply = await client.get("/readyz")
    except httpx.HTTPError as error:
        return f"/readyz: {error or type(error).__name__}"
    return None if reply.status_code == httpx.codes.OK else f"/readyz: {reply.text[:1000]}"
