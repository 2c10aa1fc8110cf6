"""Waits between crashes."""

from __future__ import annotations

from coordinator.supervisor.backoff import Backoff, BackoffConfig


def test_backoff_doubles_to_its_bound_and_forgets_after_health() -> None:
    backoff = Backoff(BackoffConfig())
    waits = [backoff.after_crash_s(1.0) for _ in range(9)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    assert backoff.after_crash_s(59.9) == 30.0
    assert backoff.after_crash_s(60.0) == 0.2
    assert backoff.after_crash_s(0.0) == 0.4
