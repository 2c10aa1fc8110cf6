"""The demo's corpus: real, bounded, the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers import parse_file
from coordinator.ingest.stdlib_corpus import CorpusInfo, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CorpusInfo]:
    target = tmp_path_factory.mktemp("corpus")
    (target / "leftover.md").write_text("of another release")
    return target, write_corpus(target)


def test_the_corpus(corpus: tuple[Path, CorpusInfo]) -> None:
    target, info = corpus
    files = sorted(target.glob("*.md"))
    names = {f.name for f in files}
    assert len(files) == info.documents > 60
    assert "leftover.md" not in names
    assert {"json.md", "argparse.md", "builtins.md", "itertools.md", "math.md"} <= names
    assert not any(n.startswith(("test.", "idlelib", "lib2to3")) for n in names)
    # At most about 400 characters to a chunk: enough text for 1 500, not too much for a demo.
    assert 600_000 < info.characters <= 700_000
    first = {f.name: f.read_bytes() for f in files}
    assert write_corpus(target) == info
    assert first == {f.name: f.read_bytes() for f in target.glob("*.md")}


def test_a_module_is_described_by_headings_signatures_and_docstrings(
    corpus: tuple[Path, CorpusInfo],
) -> None:
    path = corpus[0] / "bisect.md"
    (document,) = parse_file(path, path.name, ParseLimits())
    assert document.title == "bisect"
    assert document.metadata == {"module": "bisect", "package": "bisect"}
    titles = [h.title for h in document.headings]
    assert titles[0] == "bisect"
    assert "insort_right" in titles
    assert "def insort_right(a, x, lo=0" in document.text
    assert "Insert item x in list a" in document.text
