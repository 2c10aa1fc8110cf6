"""A closed loop of requests whose every failure is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

WORKERS = 2
#: Nodes that start meanwhile need processors too.
PAUSE_S = 0.1


class Load:
    """Workers that ask, search and question in turn, until they are told to stop.

    Attributes:
        lost: what was answered otherwise than whole.
    """

    def __init__(self, url: str, collection: str) -> None:
        self.lost: list[str] = []
        self._url = url
        self._collection = collection
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._answered = 0

    @property
    def answered(self) -> int:
        with self._lock:
            return self._answered

    def work(self, worker: int) -> None:
        """One worker's life."""
        number = worker
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                number += 1
                time.sleep(PAUSE_S)
                problem = self._ask(client, number)
                with self._lock:
                    self._answered += 1
                    if problem is not None:
                        self.lost.append(problem)

    def stop(self) -> None:
        self._stop.set()

    def _ask(self, client: httpx.Client, number: int) -> str | None:
        text = f"What does the keeper feed animal {number % 11}?"
        common: dict[str, Any] = {"collection": self._collection, "k": 3, "min_coverage": 1.0}
        try:
            if number % 2:
                reply = client.post("/v1/search", json={**common, "text": text})
            else:
                body = {**common, "question": text, "max_tokens": 8}
                reply = client.post("/v1/query", json=body)
        except httpx.HTTPError as error:
            return repr(error)
        return None if reply.status_code == 200 else reply.text


@contextmanager
def running_load(url: str, collection: str) -> Iterator[Load]:
    """Under way inside the block, at its end joined."""
    load = Load(url, collection)
    threads = [threading.Thread(target=load.work, args=(n,)) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop()
        for thread in threads:
            thread.join(60)
