"""Distributions of lengths against numpy, and as a schema gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import InvalidInput, NotFound
from ragschema.lengths import (
    LengthsConfig,
    PercentilesConfig,
    TraceLengthsConfig,
    lengths_of,
)
from ragschema.userfile import checked_yaml


def test_a_number_is_all_there_is() -> None:
    found = lengths_of(512, "f")
    assert found.values == (512.0,)
    assert found.fixed
    assert found.mean == 512


def test_percentiles_are_met() -> None:
    found = lengths_of(PercentilesConfig(min=10, p10=20, p50=100, p90=300, p99=900, max=2000), "f")
    assert not found.fixed
    assert np.all(np.diff(found.array) >= 0)
    assert np.percentile(found.array, [10, 50, 90, 99]) == pytest.approx(
        [20, 100, 300, 900], rel=0.01
    )
    assert 10 <= found.values[0] < 11
    assert 1900 < found.values[-1] <= 2000


def test_between_percentiles_lengths_are_even() -> None:
    found = lengths_of(PercentilesConfig(min=1, p50=101, p99=199), "f")
    # 1 .. 101 in one half, 101 .. 199 up to 99 %, all the same above.
    assert found.mean == pytest.approx(0.5 * 51 + 0.49 * 150 + 0.01 * 199, rel=1e-3)


@pytest.mark.parametrize(
    ("config", "field", "hint"),
    [
        (PercentilesConfig(p50=100, p99=50), "f.p99", "give at least 100"),
        (PercentilesConfig(min=20, p50=10, p99=50), "f.p50", "give at least 20"),
        (PercentilesConfig(p50=10, p99=50, max=40), "f.max", "give at least 50"),
        (PercentilesConfig(p10=12, p50=10, p99=50), "f.p50", "give at least 12"),
    ],
)
def test_percentiles_that_fall_are_named(config: PercentilesConfig, field: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        lengths_of(config, "f")
    assert (caught.value.field, caught.value.hint) == (field, hint)


def test_a_trace_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("n\n30\n10\n20\n", encoding="utf-8")
    assert lengths_of(TraceLengthsConfig(str(path), "n"), "f").values == (10.0, 20.0, 30.0)


def test_a_long_trace_is_thinned_to_its_quantiles(tmp_path: Path) -> None:
    seed = 3
    print("seed", seed)
    values = np.random.default_rng(seed).lognormal(5, 1, 20_000).astype(int) + 1
    path = tmp_path / "t.csv"
    path.write_text("n\n" + "\n".join(map(str, values)), encoding="utf-8")
    found = lengths_of(TraceLengthsConfig(str(path), "n"), "f")
    assert len(found.values) == 1000
    assert found.mean == pytest.approx(values.mean(), rel=0.01)
    assert np.percentile(found.array, 99) == pytest.approx(np.percentile(values, 99), rel=0.02)


def test_a_length_of_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("n\n30\n0\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="a length of 0 tokens in column 'n'"):
        lengths_of(TraceLengthsConfig(str(path), "n"), "f")


def test_a_trace_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound):
        lengths_of(TraceLengthsConfig("gone.csv", "n"), "f")


def read(text: str) -> LengthsConfig:
    return checked_yaml(text, "s.yaml", LengthsConfig, "see the docs")


def test_each_form_is_read() -> None:
    found = read(
        "question: 20\nprompt: {p50: 500, p99: 900}\noutput: {trace: a.jsonl.gz, column: out}"
    )
    assert found == LengthsConfig(
        20, PercentilesConfig(500, 900), TraceLengthsConfig("a.jsonl.gz", "out")
    )


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("prompt: none", "prompt", "'none'"),
        ("prompt: 0", "prompt", "greater than or equal to 1"),
        ("prompt: [1, 2]", "prompt", "integer"),
        ("prompt: {p50: 10}", "prompt.p99", "Field required|required"),
        ("prompt: {p50: 10, p99: 0}", "prompt.p99", "greater than or equal to 1"),
        ("prompt: {p50: 10, p99: 20, p95: 15}", "prompt.p95", "did you mean p9"),
        ("prompt: {trace: a.parquet, column: n}", "prompt.trace", "pattern"),
        ("prompt: {trace: a.csv}", "prompt.column", "required"),
        ("prompt: {trace: a.csv, colum: n}", "prompt.colum", "did you mean column"),
    ],
)
def test_a_mistake_is_one_of_the_form_that_was_meant(text: str, field: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        read(text)
    assert caught.value.field == field
