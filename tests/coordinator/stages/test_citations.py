"""Citation markers in streamed text, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.stages.citations import CitationParser
from coordinator.types import Chunk, Hit


def hits(count: int) -> dict[int, Hit]:
    def chunk(n: int) -> Chunk:
        return Chunk(n, f"c{n}", "d", "t", 0, 1, "x", (), 1, {})

    return {n: Hit(chunk(n), -float(n)) for n in range(1, count + 1)}


def cited(pieces: list[str], count: int = 9) -> list[int]:
    parser = CitationParser(hits(count))
    found = [c.number for piece in pieces for c in parser.feed(piece)]
    assert sorted(found) == [c.number for c in parser.all() if c.cited]
    return found


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("nothing", []),
        ("so it is [2].", [2]),
        ("[1][3] and [1] again", [1, 3]),
        ("[3, 1] together", [3, 1]),
        ("[ 4 ]", [4]),
        ("[10] is not there", []),
        ("[0] nor [-1] nor [1.5] nor [x]", []),
        ("[2, 77] one of them", [2]),
        ("[[5]]", [5]),
        ("[6", []),
        ("[1234567890]", []),
        ("[" + "1, " * 20 + "1]", []),
        ("list[7]", [7]),
        ("[٣]", []),
        ("", []),
    ],
)
def test_markers(text: str, numbers: list[int]) -> None:
    assert cited([text]) == numbers


def test_a_marker_may_come_in_pieces() -> None:
    parser = CitationParser(hits(12))
    assert parser.feed("well [") == []
    assert parser.feed("1") == []
    assert [c.number for c in parser.feed("2] done")] == [12]


def test_a_passage_is_reported_once() -> None:
    parser = CitationParser(hits(2))
    assert len(parser.feed("[1]")) == 1
    assert parser.feed("[1]") == []


def test_all_lists_every_passage_with_its_flag() -> None:
    parser = CitationParser(hits(3))
    parser.feed("see [2]")
    assert [(c.number, c.cited) for c in parser.all()] == [(1, False), (2, True), (3, False)]


def test_an_open_bracket_is_not_remembered_for_ever() -> None:
    parser = CitationParser(hits(1))
    for _ in range(1000):
        parser.feed("[1, 1, 1, ")
        parser.feed("1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ")
    assert len(parser._open) < 64


answers = st.lists(
    st.sampled_from(["[", "]", "1", "2", "7", "12", ",", " ", "a", "[3]", "[1, 2]", "\n", "[["]),
    max_size=40,
).map("".join)


@given(answers, st.data())
def test_how_the_text_is_cut_makes_no_difference(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(pieces) == text
    assert cited(pieces) == cited([text]) == cited(list(text))
