from __future__ import annotations

from pathlib import Path

import pytest

from llm_node.rewrite.template import Template, load_template, queries_in
from ragschema.errors import InvalidInput
from ragschema.types import ChatMessage

HISTORY = (ChatMessage("user", "What is heapq?"), ChatMessage("assistant", "A module {question}."))


def test_the_default_template_has_everything_in_it() -> None:
    prompt = load_template(None).fill("How does it {history} merge?", HISTORY, 3)
    assert "Last question: How does it {history} merge?" in prompt
    assert "user: What is heapq?\nassistant: A module {question}." in prompt
    assert "at most 3" in prompt
    assert "(none)" in load_template(None).fill("x", (), 1)


def test_a_file_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Größe: {question} -> ", encoding="utf-8")
    assert load_template(str(path)).fill("a", HISTORY, 1) == "Größe: a -> "


def test_templates_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"place for \{query\}"):
        Template("{question} {query}")
    with pytest.raises(InvalidInput, match="no place for the question"):
        Template("Write queries")
    with pytest.raises(InvalidInput, match="cannot read"):
        load_template(str(tmp_path / "none"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe{question}")
    with pytest.raises(InvalidInput, match="cannot read"):
        load_template(str(tmp_path / "bytes"))
    (tmp_path / "long").write_text("{question}" * 10_000)
    with pytest.raises(InvalidInput, match="more than 65536 bytes"):
        load_template(str(tmp_path / "long"))


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("how to merge lists", ("how to merge lists",)),
        ("1. first\n2) second\n- third\n* fourth", ("first", "second", "third", "fourth")),
        (' "quoted query" \n\n\u201cother\u201d', ("quoted query", "other")),
        ("Same\nsame\n  SAME  ", ("Same",)),
        ("3 ways to sort\n2024 report", ("3 ways to sort", "2024 report")),
        ("-\n...\n", ("...",)),
        ("1.\n2.", ()),
        ("1. \n (2) \n* \n3: x\n\u2022", ("x",)),
        ("1. -\n'2.'\n10. 10.\n1. real", ("real",)),
        ("1.5 or 2\n404\n-5 degrees\n(a)", ("1.5 or 2", "404", "-5 degrees", "(a)")),
        ("x" * 513 + "\nshort", ("short",)),
        ("\n \n", ()),
    ],
)
def test_lines_are_queries(text: str, queries: tuple[str, ...]) -> None:
    assert queries_in(text, 9) == queries


def test_no_more_queries_than_asked_for() -> None:
    assert queries_in("a\nb\nc", 2) == ("a", "b")
