"""Every benchmark prints one JSON object and describes its machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from bench.common import emit, machine, options, percentile, typed_failures
from bench.overhead import batches
from ragschema.errors import NotFound


def given(*arguments: str) -> argparse.Namespace:
    return options("test").parse_args(arguments)


def test_json_is_one_object_on_stdout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "results" / "x.json"
    emit({"figure": 1.5, "machine": {"cores": 2}}, given("--json", "--out", str(target)))
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"figure": 1.5, "machine": {"cores": 2}}
    assert json.loads(target.read_text()) == printed


def test_without_json_there_is_a_line_per_figure(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"figure": 1.5, "n": 2}, given())
    assert capsys.readouterr().out.split() == ["figure", "1.5", "n", "2"]


def test_the_machine_is_described() -> None:
    found = machine()
    assert found["cores"] >= 1
    assert found["cpu"]
    assert found["libraries"]["numpy"]
    json.dumps(found)


def test_percentiles_are_of_the_values_themselves() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert percentile(values, 0.5) == 3.0
    assert percentile(values, 0.99) == 5.0
    assert percentile([7.0], 0.5) == 7.0


def test_a_failure_is_a_message_not_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, typed_failures():
        raise NotFound("there is no collection", hint="ingest one")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: there is no collection (ingest one)\n"


def test_batch_sizes_are_read_from_the_metrics() -> None:
    text = (
        'ragrig_batch_requests_count{stage="embed"} 9.0\n'
        'ragrig_batch_requests_count{stage="retrieve"} 4.0\n'
        'ragrig_batch_requests_sum{stage="retrieve"} 50.0\n'
    )
    assert batches(text) == (50.0, 4.0)
    assert batches("") == (0.0, 0.0)
