"""Which operating points are checked, and the page that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.check import judge
from coordinator.cli.app import run
from coordinator.cli.check_page import write_check_page
from coordinator.cli.plan_checking import chosen_points, document
from ragschema.errors import InvalidInput
from tests.coordinator.test_check import PLAN, POINT, at_load, flat, report

KNOWN = replace(
    PLAN, points=(POINT, {**POINT, "load": 0.7}), requests={"question": 8.0, "output": 16.0}
)


def test_points_are_chosen_by_their_load() -> None:
    assert chosen_points(KNOWN, "0.7, full") == ([KNOWN.points[1]], True)
    assert chosen_points(KNOWN, "0.5,0.7") == (list(KNOWN.points), False)


@pytest.mark.parametrize(
    ("plan", "loads", "said"),
    [
        (KNOWN, "0.6", "nothing about a load of 0.6"),
        (KNOWN, " ,", "no load is named"),
        (PLAN, "full", "does not say what it promises"),
    ],
)
def test_other_loads_are_refused(plan: object, loads: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        chosen_points(plan, loads)  # type: ignore[arg-type]
    assert caught.value.hint


def test_the_page_has_every_figure_and_escapes_names(tmp_path: Path) -> None:
    verdict = judge(at_load(PLAN, POINT, report(e2e_ms=flat(1500.0, 3000.0))), 6.0)
    write_check_page("a <b> plan", verdict, tmp_path / "check.html")
    text = (tmp_path / "check.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt; plan" in text
    assert "<svg" in text
    assert text.count("<tr") == len(verdict.lines) + 1
    assert text.count('class="off"') == len(verdict.lines) - verdict.kept > 0
    assert document(PLAN, verdict)["kept"] == verdict.kept


def test_without_a_rig_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "check", "plan.yaml", "--data-dir", str(tmp_path)]) != 0
    assert "no rig is running" in capsys.readouterr().err
