"""The planner's own process: within its time, and whatever it says."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from coordinator.replan.asking import ask_planner
from coordinator.replan.observe import Observed
from coordinator.replan.proposal import Ask
from ragschema.errors import DeadlineExceeded, InternalError, RagrigError, UpstreamError
from tests.coordinator.replan.planned import files

ASK = Ask("plan", "schema", None, False, Observed(1.0, 2.0, 3), 8, ("a", "b"), 5.0)


def program(source: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", source)


async def test_a_planner_out_of_time_is_ended() -> None:
    started_s = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"0\.5 s"):
        await ask_planner(ASK, 0.5, program("import time; time.sleep(600)"))
    assert time.monotonic() - started_s < 20
    children = psutil.Process().children()
    # One that has ended may still wait for somebody to take note of it.
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    assert not any("time.sleep(600)" in " ".join(child.cmdline()) for child in alive)


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("import sys; sys.exit('out of memory')", InternalError, "out of memory"),
        ("print('hello')", InternalError, "without a proposal"),
        ("print('[1]')", InternalError, "without a proposal"),
        ("print('{\"proposal\": {}}')", InternalError, "without a proposal"),
        ('print(\'{"error": "no such plan"}\')', UpstreamError, "no such plan"),
    ],
)
async def test_a_planner_that_says_nothing_useful(
    source: str, kind: type[RagrigError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        await ask_planner(ASK, 60.0, program(source))


async def test_the_true_planner_answers(tmp_path: Path) -> None:
    from ragschema.here import this_machine

    made = files(tmp_path, this_machine(), scan_s=0.05, scans=1)
    out = str(tmp_path / "batches.yaml"), str(tmp_path / "processes.yaml")
    seen = Observed(60.0, 25.0, 100, 11.0, 3.0)
    wanted = Ask(str(made.plan), str(made.schema), str(made.profile), False, seen, 8, out, 20.0)
    found = await ask_planner(wanted, 120.0)
    assert found.batches is not None
    assert found.batches.plan == out[0]
    with pytest.raises(UpstreamError, match="there is no plan"):
        await ask_planner(ASK, 120.0)
