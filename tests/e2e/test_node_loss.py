"""A retrieval node is killed under load: every request is answered, none hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.rigs import RunningRig, wait_for

WORKERS = 8
WHOLE, PARTIAL, REFUSED = "whole", "partial", "refused"


@dataclass(frozen=True)
class Outcome:
    """One request's answer; ``strict`` ones asked for full coverage."""

    strict: bool
    kind: str
    body: dict[str, Any]


def body(strict: bool, number: int) -> dict[str, Any]:
    return {
        "collection": "sightings",
        "text": f"Somebody saw a wolf asleep in the tower, {number % 7}.",
        "k": 5,
        "min_coverage": 1.0 if strict else 0.0,
    }


async def ask(client: httpx.AsyncClient, strict: bool, number: int) -> Outcome:
    """Any answer but a whole, a partial or a clearly refused one fails the test here."""
    reply = await client.post("/v1/search", json=body(strict, number))
    found = reply.json()
    if reply.status_code == 503:
        assert set(found["error"]) == {"type", "message", "field", "hint", "trace_id"}
        return Outcome(strict, REFUSED, found["error"])
    assert reply.status_code == 200, reply.text
    whole = found["coverage"]["fraction"] == 1.0
    assert whole == (found["coverage"]["missing"] == [])
    assert found["hits"]
    return Outcome(strict, WHOLE if whole else PARTIAL, found["coverage"])


class Load:
    """Workers that ask until they are told to stop; half of them want full coverage."""

    def __init__(self, url: str) -> None:
        self.outcomes: list[Outcome] = []
        self._stop = False
        self._client = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)

    async def run(self) -> None:
        async with self._client, asyncio.TaskGroup() as group:
            for worker in range(WORKERS):
                group.create_task(self._work(worker))

    def stop(self) -> None:
        self._stop = True

    async def _work(self, worker: int) -> None:
        number = 0
        while not self._stop:
            self.outcomes.append(await ask(self._client, worker % 2 == 0, number))
            number += 1

    async def seen(self, kind: str, strict: bool, since: int = 0) -> None:
        """Waits until such an outcome came after the first ``since``."""
        give_up_s = time.monotonic() + 90
        while not any((o.kind, o.strict) == (kind, strict) for o in self.outcomes[since:]):
            assert time.monotonic() < give_up_s, Counter((o.kind, o.strict) for o in self.outcomes)
            await asyncio.sleep(0.02)


async def test_killed_under_load_and_back_again(appliance: RunningRig) -> None:
    load = Load(appliance.url)
    work = asyncio.create_task(load.run())
    try:
        await load.seen(WHOLE, strict=False)
        pid = appliance.node("ret-1")["pid"]
        os.kill(pid, signal.SIGKILL)
        killed_at = len(load.outcomes)
        await load.seen(PARTIAL, strict=False, since=killed_at)
        await load.seen(REFUSED, strict=True, since=killed_at)
        partial_at = len(load.outcomes)
        await load.seen(WHOLE, strict=True, since=partial_at)
    finally:
        load.stop()
        await work
    check_outcomes(load.outcomes)
    assert appliance.node("ret-1")["pid"] != pid
    assert coverage(appliance) == {"fraction": 1.0, "missing": []}


def check_outcomes(outcomes: list[Outcome]) -> None:
    partial = [o for o in outcomes if o.kind == PARTIAL]
    refused = [o for o in outcomes if o.kind == REFUSED]
    assert not [o for o in partial if o.strict], "min_coverage was not kept"
    assert not [o for o in refused if not o.strict], "a partial answer was possible"
    for outcome in partial:
        assert 0.3 < outcome.body["fraction"] < 0.7
        assert outcome.body["missing"] == ["shard-1"]
    for outcome in refused:
        assert outcome.body["type"] == "insufficient_coverage"
        assert outcome.body["hint"]


def coverage(rig: RunningRig) -> dict[str, Any]:
    with rig.client() as client:
        reply = client.post("/v1/search", json=body(False, 0)).raise_for_status().json()
    found: dict[str, Any] = reply["coverage"]
    return found


@pytest.mark.parametrize("name", ["llm-0"])
def test_without_its_llm_node_the_rig_refuses_and_recovers(
    appliance: RunningRig, name: str
) -> None:
    """Nothing can be embedded, yet a search by vector goes on."""
    pid = appliance.node(name)["pid"]
    question = {"collection": "zoo", "question": "What does the otter eat?"}
    vector = {"collection": "zoo", "vector": [0.1] * 384, "k": 2}
    with appliance.client() as client:
        psutil.Process(pid).suspend()  # so that it is away for as long as we look
        psutil.Process(pid).kill()
        refused = client.post("/v1/query", json=question)
        assert refused.status_code == 503, refused.text
        assert refused.json()["error"]["hint"]
        assert client.post("/v1/search", json=vector).status_code == 200
        wait_for(lambda: client.post("/v1/query", json=question).status_code == 200, 90)
        wait_for(lambda: client.get("/readyz").status_code == 200, 30)
