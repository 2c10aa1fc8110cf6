"""The growth problems are what they say, and their picture is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.planner_growth import draw, with_chips, with_kinds, with_stages
from ragschema.errors import InvalidInput
from ragschema.planner.search import search


@pytest.mark.parametrize("stages", [3, 9])
def test_stages_are_as_many_as_asked_for(stages: int) -> None:
    problem = with_stages(stages)
    assert len(problem.stages) == stages
    assert len(problem.placements) == 2 ** (stages - 2)


def test_kinds_and_chips_are_as_many_as_asked_for() -> None:
    assert [k.limit for k in with_kinds(2, 512).kinds] == [512, 512]
    assert with_kinds(2, 512).max_chips == 1024
    assert with_chips(256).max_chips == 256


def test_more_chips_find_more() -> None:
    few, more = search(with_kinds(2, 16)).points, search(with_kinds(2, 32)).points
    assert more[-1].qps > few[-1].qps


RESULT = {f"growth_{what}_s": {"1": 0.1, "2": 0.4} for what in ("chips", "stages", "kinds")}


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "growth.svg", RESULT)
    assert "<svg" in (tmp_path / "growth.svg").read_text(encoding="utf-8")
    with pytest.raises(InvalidInput, match="cannot write"):
        draw(tmp_path / "none" / "growth.svg", RESULT)
