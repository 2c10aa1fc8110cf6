"""Documents between processes, and what identifies their content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.ingest.document import (
    Heading,
    ParsedDocument,
    cleaned,
    documents_from_json,
    documents_to_json,
    markdown_headings,
    read_documents_file,
    write_documents_file,
)
from ragschema.errors import UnreadableDocument

DOCUMENT = ParsedDocument(
    "d", "T", "# H\n\nbody", (Heading(0, 1, "H"),), {"n": 1, "f": 1.0, "b": True, "s": "x"}, "src"
)


def test_documents_survive_the_way_with_their_types(tmp_path: Path) -> None:
    (found,) = documents_from_json(documents_to_json([DOCUMENT]))
    assert found == DOCUMENT
    assert [type(v) for v in found.metadata.values()] == [int, float, bool, str]
    write_documents_file(tmp_path / "f", [DOCUMENT, replace(DOCUMENT, document_id="e")])
    assert [d.document_id for d in read_documents_file(tmp_path / "f")] == ["d", "e"]


def test_lines_without_headings_are_markdown(tmp_path: Path) -> None:
    line = {"document_id": "d", "title": "T", "text": "# One\n\nx", "metadata": {}, "source": "s"}
    (tmp_path / "f").write_text(json.dumps(line))
    (found,) = read_documents_file(tmp_path / "f")
    assert found.headings == (Heading(0, 1, "One"),)


@pytest.mark.parametrize("line", ["{}", "x", '{"document_id": "", "title": "", "text": ""}'])
def test_bad_lines_are_named(tmp_path: Path, line: str) -> None:
    write_documents_file(tmp_path / "f", [DOCUMENT])
    with (tmp_path / "f").open("a") as out:
        out.write(line + "\n")
    with pytest.raises(UnreadableDocument, match="line 2"):
        list(read_documents_file(tmp_path / "f"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDocument, match="absent"):
        list(read_documents_file(tmp_path / "absent"))


def test_a_parser_that_answers_nonsense_is_not_believed() -> None:
    with pytest.raises(UnreadableDocument, match="no valid result"):
        documents_from_json('[{"document_id": 3}]')


def test_the_content_hash_sees_what_a_search_could_show() -> None:
    others = [
        replace(DOCUMENT, text="# H\n\nbody!"),
        replace(DOCUMENT, title="U"),
        replace(DOCUMENT, headings=()),
        replace(DOCUMENT, metadata={"n": 2}),
        replace(DOCUMENT, metadata=DOCUMENT.metadata | {"n": True}),
    ]
    assert len({d.content_hash() for d in (DOCUMENT, *others)}) == 6
    same = replace(DOCUMENT, metadata=dict(reversed(list(DOCUMENT.metadata.items()))), source="o")
    assert same.content_hash() == DOCUMENT.content_hash()


@given(text=st.text(st.characters(codec=None), max_size=50))
def test_cleaning_keeps_offsets_and_makes_text_storable(text: str) -> None:
    clean = cleaned(ParsedDocument("d", text, text, metadata={text or "k": text}))
    assert len(clean.text) == len(text)
    clean.text.encode("utf-8")
    assert "\0" not in clean.text


@given(st.lists(st.sampled_from(["# A", "## B ##", "```", "~~~", "text", "", "#x", "    # c"])))
def test_headings_begin_where_they_say(lines: list[str]) -> None:
    text = "\n".join(lines)
    for heading in markdown_headings(text):
        line = text[heading.offset :].split("\n")[0]
        assert line.lstrip("#").strip(" #") == heading.title
        assert heading.offset == 0 or text[heading.offset - 1] == "\n"
