"""A small least-recently-used cache with a bound on its weight."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class WeightedLru(Generic[Key, Value]):
    """Safe to use from several threads.

    Args:
        capacity: total weight beyond which the oldest entries leave.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._weight = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def get_many(self, keys: Iterable[Key]) -> dict[Key, Value]:
        """Those that are there, for the price of one lock."""
        found: dict[Key, Value] = {}
        entries = self._entries
        with self._lock:
            for key in keys:
                entry = entries.get(key)
                if entry is not None:
                    entries.move_to_end(key)
                    found[key] = entry[0]
        return found

    def put(self, key: Key, value: Value, weight: int) -> None:
        """Keeps the value unless it alone is over the capacity."""
        if weight > self._capacity:
            return
        with self._lock:
            old = self._entries.pop(key, None)
            self._weight += weight - (old[1] if old else 0)
            self._entries[key] = (value, weight)
            while self._weight > self._capacity:
                _, (_, gone) = self._entries.popitem(last=False)
                self._weight -= gone
