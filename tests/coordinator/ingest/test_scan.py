"""Finding files: order, hidden ones, loops, what cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.ingest.scan import scan_sources


def names(*sources: Path) -> list[str]:
    return [file.name for file in scan_sources(str(s) for s in sources).files]


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def test_folders_are_listed_in_order_without_hidden_ones(tmp_path: Path) -> None:
    root = make(
        tmp_path / "r", "b.txt", "a.md", "z/x.py", "c/d/e.txt", ".h/x.txt", ".x.md", "p.png"
    )
    assert names(root) == ["r/a.md", "r/b.txt", "r/c/d/e.txt", "r/z/x.py"]
    assert scan_sources([str(root)]).unsupported == {".png": 1}


def test_a_file_named_itself(tmp_path: Path) -> None:
    root = make(tmp_path, "sub/a.md", "sub/b.xyz", "sub/.hidden.md")
    scan = scan_sources([str(root / "sub/a.md"), str(root / "sub/b.xyz"), str(root / "none.md")])
    assert [(f.name, f.root) for f in scan.files] == [("a.md", None)]
    assert [Path(s.path).name for s in scan.skipped] == ["b.xyz", "none.md"]
    assert ".pdf" in scan.skipped[0].reason
    assert "No such file" in scan.skipped[1].reason
    assert names(root / "sub/.hidden.md") == [".hidden.md"]


def test_loops_and_double_mentions_are_read_once(tmp_path: Path) -> None:
    root = make(tmp_path / "r", "a/one.txt", "b/two.txt")
    (root / "a" / "loop").symlink_to(root)
    (root / "b" / "again.txt").symlink_to(root / "a" / "one.txt")
    assert names(root, root, root / "a") == ["r/a/one.txt", "r/b/two.txt"]


def test_special_files_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "broken.txt").symlink_to("nowhere")
    scan = scan_sources([str(tmp_path)])
    assert scan.files == []
    reasons = {Path(s.path).name: s.reason for s in scan.skipped}
    assert reasons["pipe.txt"] == "is not a regular file"
    assert "No such file" in reasons["broken.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    root = make(tmp_path / "r", "open.txt", "shut/x.txt")
    (root / "shut").chmod(0)
    try:
        scan = scan_sources([str(root)])
    finally:
        (root / "shut").chmod(0o700)
    assert scan.blocked == [root / "shut"]
    assert [f.name for f in scan.files] == ["r/open.txt"]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    raw = os.fsencode(str(tmp_path)) + b"/bad\xff.txt"
    with open(raw, "w") as out:
        out.write("x")
    scan = scan_sources([str(tmp_path)])
    assert scan.files == []
    assert "UTF-8" in scan.skipped[0].reason
    scan.skipped[0].path.encode("utf-8")
