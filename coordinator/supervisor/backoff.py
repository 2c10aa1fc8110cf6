"""How long to wait before a crashed node is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackoffConfig:
    """Exponential back-off.

    Attributes:
        first_s: wait after the first crash.
        factor: growth per further crash.
        longest_s: the wait never grows past this.
        forget_after_s: a node healthy this long starts again from ``first_s``.
    """

    first_s: float = 0.2
    factor: float = 2.0
    longest_s: float = 30.0
    forget_after_s: float = 60.0


class Backoff:
    """Waits of one node, growing with each crash."""

    def __init__(self, config: BackoffConfig) -> None:
        self._config = config
        self._next_s = config.first_s

    def after_crash_s(self, healthy_s: float) -> float:
        """Seconds to wait, given how long the ended process had been ready."""
        if healthy_s >= self._config.forget_after_s:
            self._next_s = self._config.first_s
        wait_s = self._next_s
        self._next_s = min(self._config.longest_s, wait_s * self._config.factor)
        return wait_s
