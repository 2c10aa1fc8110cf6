from __future__ import annotations

import heapq
import inspect

import pytest

from llm_node.generate.segments import SegmentKind, split_passage, split_sentences

KINDS = {"p": SegmentKind.PROSE, "i": SegmentKind.ITEM, "c": SegmentKind.CODE}
KINDS["h"] = SegmentKind.HEADING


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Use e.g. a list, i.e. this. Next one.", ["Use e.g. a list, i.e. this.", "Next one."]),
        ("See Dr. Smith and J. R. Tolkien. End.", ["See Dr. Smith and J. R. Tolkien.", "End."]),
        ("Version 3.11 is out. It is fast.", ["Version 3.11 is out.", "It is fast."]),
        ("Call it. os.path.join() joins.", ["Call it.", "os.path.join() joins."]),
        ("Wait... and see. Done.", ["Wait... and see.", "Done."]),
        ('He said "Stop." Then left.', ['He said "Stop."', "Then left."]),
        ("A (see B. And C.) stays whole. D.", ["A (see B. And C.) stays whole.", "D."]),
        ("これは本。あれは犬。", ["これは本。", "あれは犬。"]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_sentences(text: str, wanted: list[str]) -> None:
    assert split_sentences(text) == wanted


def _shape(text: str) -> str:
    letters = {kind: letter for letter, kind in KINDS.items()}
    return "".join(letters[segment.kind] for segment in split_passage(text))


def test_paragraphs_are_joined_before_they_are_cut() -> None:
    segments = split_passage("A sentence over\ntwo lines. Another\none.\n\nNew paragraph.")
    assert [s.text for s in segments] == [
        "A sentence over two lines.",
        "Another one.",
        "New paragraph.",
    ]
    assert [s.position for s in segments] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("# Title\nText here.", "hp"),
        ("Title\n=====\nText here.", "hp"),
        ("Intro:\n- one thing\n- another thing\n  that goes on\n", "pii"),
        ("1. first step\n2. second step", "ii"),
        ("Text.\n```python\nx = 1\n\ny = 2\n```\nMore text.", "pcp"),
        (">>> merge([1], [2])\n[1, 2]\n\nIt merges.", "cp"),
        ("merge(*iterables, key=None) -> iterator\n\nMerges.", "cp"),
        ("def f(x):\n    return x\n\nThat was code.", "cp"),
        ("heap = []            # creates an empty heap\npush(heap, 1)  # adds to it", "c"),
        (":param key: how to compare\n:return: the list", "ii"),
        ("-----\n=====\n|---|---|\nText.", "p"),
        ("   \n\n", ""),
    ],
)
def test_kinds(text: str, shape: str) -> None:
    assert _shape(text) == shape


def test_bullets_are_not_quoted() -> None:
    assert split_passage("- keeps the heap small")[0].text == "keeps the heap small"


def test_code_keeps_its_lines() -> None:
    (segment,) = split_passage("    for x in y:\n        print(x)")
    assert segment.text == "for x in y:\n    print(x)"


def test_a_real_docstring_gives_its_summary_first() -> None:
    segments = split_passage(inspect.getdoc(heapq.nlargest) or "")
    assert segments[0].text == "Find the n largest elements in a dataset."
