"""What ``ragrig status`` says of live re-planning."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.cli.replan_view import replan_lines

LAST = {
    "at": "2026-11-28T18:00:00+00:00", "kind": "batches", "applied": True,
    "reason": "arrivals per s 40, planned for 4 to 12", "changes": ["retrieve.max_batch 1 -> 16"],
    "before_s": 2.0, "after_s": 0.5, "gain": 4.0, "plan": "plan-1.yaml", "note": "",
}  # fmt: skip
PLAIN = {
    "mode": "auto", "state": "watching", "plan": "plan.yaml", "observed": {"answers": 100},
    "out_of_range": [], "dwell_left_s": 0.0, "last": None, "error": None,
}  # fmt: skip


def lines(**changes: Any) -> list[str]:
    return list(replan_lines({**PLAIN, **changes}))


def test_nobody_watches() -> None:
    assert list(replan_lines(None)) == []


def test_the_load() -> None:
    assert lines() == ["re-planning (auto), watching: the load is within the plan's range"]
    assert lines(observed=None)[0].endswith("too few requests to tell")
    out = [{"what": "arrivals per s", "value": 40.0, "low": 4.0, "high": 12.0}]
    assert lines(out_of_range=out)[0].endswith("arrivals per s 40, planned for 4 to 12")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "deployed other batches (retrieve.max_batch 1 -> 16), 4.00 times better, since"),
        ({"applied": False, "note": "refused: no memory"}, "proposed other batches"),
        ({"applied": False, "note": "refused: no memory"}, "better; refused: no memory, since"),
        ({"kind": "none", "changes": [], "gain": 1.0}, "kept the plan, 1.00 times better, since"),
    ],
)
def test_the_last_conclusion(changes: dict[str, Any], said: str) -> None:
    _, line = lines(last=LAST | changes)
    assert said in line
    assert line.endswith("since arrivals per s 40, planned for 4 to 12")


def test_a_failure() -> None:
    assert lines(error="planning took more than 90 s")[-1].endswith("took more than 90 s")
