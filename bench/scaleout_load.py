"""A closed loop of searches and questions, of which every answer is kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from bench.common import percentile

_K = 5
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """One request; seconds of ``time.monotonic``.

    Attributes:
        problem: None: it was answered whole.
    """

    kind: str
    sent_s: float
    done_s: float
    problem: str | None


class ClosedLoop:
    """Clients that each send their next request when the last one is answered.

    Half of the requests search by text, half ask for an answer; all want full coverage.

    Attributes:
        answers: of all requests so far.
    """

    def __init__(self, url: str, collection: str, texts: Sequence[str], tokens: int) -> None:
        self.answers: list[Answer] = []
        self._client = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
        self._collection = collection
        self._texts = texts
        self._tokens = tokens
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False

    def start(self, clients: int) -> None:
        """Returns at once."""
        for number in range(clients):
            self._tasks.append(asyncio.create_task(self._work(number)))

    async def stop(self) -> None:
        """Returns when what is under way is answered."""
        self._stop = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    async def answered(self, count: int) -> None:
        """Returns when so many more requests are answered."""
        wanted = len(self.answers) + count
        # Polled: an event for it would be set thousands of times.
        while len(self.answers) < wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def _work(self, number: int) -> None:
        while not self._stop:
            number += 1
            self.answers.append(await self._ask(number))

    async def _ask(self, number: int) -> Answer:
        text = self._texts[number % len(self._texts)]
        body: dict[str, Any] = {"collection": self._collection, "k": _K, "min_coverage": 1.0}
        kind = "search" if number % 2 else "query"
        if kind == "search":
            body |= {"text": text}
        else:
            body |= {"question": text, "max_tokens": self._tokens}
        sent_s = time.monotonic()
        try:
            reply = await self._client.post(f"/v1/{kind}", json=body)
        except httpx.HTTPError as error:
            return Answer(kind, sent_s, time.monotonic(), type(error).__name__)
        problem = None if reply.status_code == httpx.codes.OK else _problem(reply)
        return Answer(kind, sent_s, time.monotonic(), problem)


def _problem(reply: httpx.Response) -> str:
    try:
        return f"{reply.status_code} {reply.json()['error']['type']}"
    except (ValueError, KeyError, TypeError):
        return str(reply.status_code)


def summary(answers: Sequence[Answer], from_s: float, to_s: float) -> dict[str, Any]:
    """What was answered between two times, whenever it was sent."""
    found = [a for a in answers if from_s <= a.done_s < to_s]
    told: dict[str, Any] = {
        "seconds": round(to_s - from_s, 1),
        "requests": len(found),
        "lost": dict(Counter(a.problem for a in found if a.problem is not None)),
        "per_s": round(len(found) / (to_s - from_s), 2),
    }
    for kind in ("search", "query"):
        took_ms = [(a.done_s - a.sent_s) * 1e3 for a in found if a.kind == kind]
        if took_ms:
            told[f"{kind}_ms"] = {
                f"p{share:g}": round(percentile(took_ms, share / 100), 1) for share in (50, 99)
            }
    return told
