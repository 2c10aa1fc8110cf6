"""What re-planning is told, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.cli.app import run
from coordinator.replan.settings import check_inputs, read_settings, write_settings
from ragschema.errors import IncompatibleRequest, InvalidInput, NotFound
from ragschema.here import this_machine
from tests.coordinator.replan.planned import Files, files


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return files(tmp_path_factory.mktemp("planned"), this_machine())


def test_settings_are_read_back_equal(made: Files, tmp_path: Path) -> None:
    settings = made.settings(min_gain=1.4, mode="propose")
    write_settings(tmp_path / "replan.json", settings)
    assert read_settings(tmp_path / "replan.json") == settings


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [('"auto"', '"always"', "mode"), ('"dwell_s"', '"dwel_s"', "dwel_s"), ("1.15", "0.5", "enter")],
)
def test_a_wrong_file_is_refused(
    made: Files, tmp_path: Path, old: str, new: str, field: str
) -> None:
    path = tmp_path / "replan.json"
    write_settings(path, made.settings())
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InvalidInput) as caught:
        read_settings(path)
    assert caught.value.field == field


def test_the_inputs_are_checked(made: Files, tmp_path: Path) -> None:
    check_inputs(made.settings())
    with pytest.raises(NotFound):
        check_inputs(made.settings(plan=str(tmp_path / "none.yaml")))
    with pytest.raises(InvalidInput, match="to leave"):
        check_inputs(made.settings(enter=1.01))
    other = tmp_path / "schema.yaml"
    other.write_text(made.schema.read_text().replace("name: cats", "name: dogs"))
    with pytest.raises(InvalidInput, match=r"planned for 'cats'.* 'dogs'"):
        check_inputs(made.settings(schema=str(other)))


def test_a_profile_that_cannot_judge_the_plan_is_refused(
    made: Files, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    other = files(tmp_path_factory.mktemp("other"))
    with pytest.raises(IncompatibleRequest, match="another machine"):
        check_inputs(made.settings(profile=str(other.profile)))
    larger = tmp_path / "larger.yaml"
    larger.write_text(made.plan.read_text().replace("batch: 8", "batch: 64"))
    with pytest.raises(IncompatibleRequest, match="not possible") as caught:
        check_inputs(made.settings(plan=str(larger)))
    assert "--allow-extrapolation" in str(caught.value.hint)
    check_inputs(made.settings(plan=str(larger), allow_extrapolation=True))


@pytest.mark.parametrize("without", ["--plan", "--schema"])
def test_up_needs_the_plan_and_its_workload(
    made: Files, tmp_path: Path, without: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--plan": str(made.plan), "--schema": str(made.schema)}
    options.pop(without)
    argv = [word for pair in options.items() for word in pair]
    data_dir = str(tmp_path / "data")
    assert run(["up", "--replan", "auto", "--data-dir", data_dir, *argv]) == 1
    assert "re-planning needs the plan and the workload" in capsys.readouterr().err
    assert not Path(data_dir).exists()
