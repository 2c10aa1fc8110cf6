"""ragrig index around real faiss files, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator.cli.app import run
from coordinator.cli.indexing import name_of
from tests.coordinator.indexes.files import write_index

DATA = ["--data-dir", "data"]


def test_import_tune_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_index(tmp_path / "My Index.faiss", "OPQ4,IVF16,PQ4,RFlat")
    assert run(["index", "import", "My Index.faiss", *DATA]) == 0
    shown = capsys.readouterr().out
    assert "collection my-index" in shown
    assert "ragrig index tune my-index --recall 0.95" in shown
    tune = ["index", "tune", "my-index", "--recall", "0.9", "--sample", "50", "--threads", "1"]
    assert run([*tune, *DATA]) == 0
    shown = capsys.readouterr().out
    assert "recall@10 of 50 queries" in shown
    assert "recall 0.9 is reached with" in shown
    assert run(["index", "export", "my-index", "out.faiss", *DATA]) == 0
    assert "1200 vectors written" in capsys.readouterr().out
    assert (tmp_path / "out.faiss").stat().st_size > 1200 * 4
    assert run(["index", "import", "out.faiss", "--name", "again", *DATA]) == 0


def test_out_of_reach_says_what_would_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = write_index(tmp_path / "x.faiss", "IVF4,PQ4", rows=300)
    assert run(["index", "import", "x.faiss", *DATA]) == 0
    np.save("q.npy", vectors[:20])
    # Nobody's neighbours: the first rows, whatever was asked.
    np.save("t.npy", np.tile(np.arange(10), (20, 1)))
    given = ["--queries", "q.npy", "--truth", "t.npy"]
    assert run(["index", "tune", "x", "--recall", "0.95", *given, *DATA]) == 1
    shown = capsys.readouterr().out
    assert "recall 0.95 is out of reach" in shown
    assert "what would help: refinement" in shown
    assert "a larger M than 4" in shown


def test_refusals_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.faiss").write_bytes(b"no index at all" * 100)
    assert run(["index", "import", "bad.faiss", *DATA]) == 1
    assert "no faiss index" in capsys.readouterr().err
    assert not (tmp_path / "data" / "collections" / "bad").exists()
    assert run(["index", "export", "none", "out.faiss", *DATA]) == 1
    assert "no collection 'none'" in capsys.readouterr().err
    assert run(["index", "tune", "none", "--recall", "0.9", *DATA]) == 1
    assert run(["index", "tune", "none", "--recall", "1.5", *DATA]) == 2
    assert run(["index", "import", "bad.faiss", "--name", "No Name", *DATA]) == 1
    assert "not a collection name" in capsys.readouterr().err


def test_names_are_made_of_file_names() -> None:
    assert name_of(Path("/a/My Index_2.v1.faiss")) == "my-index_2-v1"
    assert name_of(Path("---.faiss")) == "imported"
    assert len(name_of(Path("x" * 200))) == 63
