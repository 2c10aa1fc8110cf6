"""Columns of traces: every form that is read, and every mistake with its line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ragschema.errors import InvalidInput, NotFound
from ragschema.tracefile import trace_column

CSV = "at,tokens,note\n0.5,12,a\n1.25,7,b\n"
JSONL = '{"at": 0.5, "tokens": 12}\n\n{"at": 1.25, "tokens": 7}\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [("t.csv", CSV), ("t.csv.gz", CSV), ("t.jsonl", JSONL), ("t.jsonl.gz", JSONL)],
)
def test_every_form(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert trace_column(path, "tokens", "f").tolist() == [12.0, 7.0]
    assert trace_column(path, "at", "f").tolist() == [0.5, 1.25]


@pytest.mark.parametrize(
    ("name", "text", "column", "said"),
    [
        ("t.csv", CSV, "token", "line 2 has no 'token'"),
        ("t.csv", CSV, "note", "line 2: 'a' is no number"),
        ("t.csv", "at,tokens\n1,nan\n", "tokens", "line 2: 'nan' is no number"),
        ("t.csv", "at,tokens\n1\n", "tokens", "line 2: 'None' is no number"),
        ("t.csv", "at,tokens\n", "tokens", "has no rows"),
        ("t.jsonl", "", "tokens", "has no rows"),
        ("t.jsonl", '{"a": 1}\n{"a": \n', "a", "line 2 is not JSON"),
        ("t.jsonl", "[" * 100_000 + "\n", "a", "line 1 is not JSON"),
        ("t.jsonl", "[1]\n", "a", "line 1 is no object"),
        ("t.jsonl", '{"a": [1]}\n', "a", "line 1: '[1]' is no number"),
        ("t.jsonl", '{"a": "' + "x" * (1 << 20) + '"}\n', "a", "line 1 is longer than"),
    ],
)
def test_a_mistake_names_its_line(
    tmp_path: Path, name: str, text: str, column: str, said: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match="t\\.") as caught:
        trace_column(path, column, "lengths.output.column")
    assert said in str(caught.value)
    assert caught.value.field == "lengths.output.column"


def test_a_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(CSV, encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        trace_column(path, "token", "f")
    assert caught.value.hint == "use one of at, tokens, note"


def test_no_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no trace .*gone\.csv"):
        trace_column(tmp_path / "gone.csv", "a", "f")


@pytest.mark.parametrize("data", [b"a\n\xff\xfe\n", b"\x1f\x8b not gzip"])
def test_what_is_no_text_cannot_be_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / ("t.csv.gz" if data.startswith(b"\x1f") else "t.csv")
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match="cannot read"):
        trace_column(path, "a", "f")


@pytest.mark.parametrize("half", [True, False])
def test_a_damaged_gzip_file_cannot_be_read(tmp_path: Path, half: bool) -> None:
    data = gzip.compress(("at\n" + "".join(f"{i}\n" for i in range(20_000))).encode())
    middle = len(data) // 2
    path = tmp_path / "t.csv.gz"
    path.write_bytes(data[:middle] + (b"" if half else b"\xff" * 64 + data[middle + 64 :]))
    with pytest.raises(InvalidInput, match="cannot read"):
        trace_column(path, "at", "f")
