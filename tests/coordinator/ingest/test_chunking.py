"""Chunking: nothing lost, nothing too long, the same every time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.ingest.chunking import DocumentChunk, chunk_document, chunk_id
from coordinator.ingest.document import Heading, ParsedDocument, markdown_headings
from coordinator.ingest.units import MAX_UNIT_CHARS, Border, units_of
from ragschema.storage.manifest import ChunkingConfig
from tests.fakes import word_offsets

WORDS = ["alpha", "be", "x", "naïve", "日本語", "123", "foo_bar", "it's", "e.g.", "—", "\u200b"]
GLUE = [" ", "  ", "\n", "\n\n", ". ", "! ", "\n# Head\n", "\n## Sub\n\n", "\t", ", "]
TEXTS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GLUE)), max_size=400).map(
    lambda parts: "".join(word + glue for word, glue in parts)
)
CONFIGS = st.integers(16, 64).flatmap(
    lambda tokens: st.builds(ChunkingConfig, st.just(tokens), st.integers(0, tokens // 2))
)


def cut(text: str, config: ChunkingConfig, document_id: str = "d") -> tuple[DocumentChunk, ...]:
    document = ParsedDocument(document_id, "T", text, markdown_headings(text))
    return chunk_document(document, word_offsets(text), config)


def check_chunks(text: str, chunks: tuple[DocumentChunk, ...], config: ChunkingConfig) -> None:
    covered = np.zeros(len(text), dtype=bool)
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.tokens <= config.tokens
        assert len(word_offsets(chunk.text)) <= config.tokens
        covered[chunk.start : chunk.end] = True
    lost = [c for c, seen in zip(text, covered, strict=True) if not seen and not c.isspace()]
    assert lost == []
    assert [c.start for c in chunks] == sorted({c.start for c in chunks})
    assert len({c.chunk_id for c in chunks}) == len(chunks)


@given(text=TEXTS, config=CONFIGS)
def test_every_character_is_in_a_chunk_and_no_chunk_is_too_long(
    text: str, config: ChunkingConfig
) -> None:
    chunks = cut(text, config)
    check_chunks(text, chunks, config)
    assert chunks == cut(text, config)
    assert bool(chunks) == bool(text.strip())


@given(text=st.text(max_size=600), config=CONFIGS)
def test_arbitrary_text_is_covered(text: str, config: ChunkingConfig) -> None:
    check_chunks(text, cut(text, config), config)


@given(
    text=st.text("ab \n", max_size=300),
    starts=st.lists(st.integers(0, 299), max_size=60),
    config=CONFIGS,
)
def test_any_token_borders_are_survived(
    text: str, starts: list[int], config: ChunkingConfig
) -> None:
    """A tokenizer may leave characters out or give several tokens the same ones."""
    offsets = np.array([[s, s + 1] for s in sorted(starts)], np.int32).reshape(-1, 2)
    chunks = chunk_document(ParsedDocument("d", "T", text), offsets, config)
    seen = "".join(text[c.start : c.end] for c in chunks)
    assert {c for c in text if not c.isspace()} == {c for c in seen if not c.isspace()}
    assert bool(chunks) == bool(text.strip())


@given(head=TEXTS, tail=TEXTS)
def test_ids_of_a_long_untouched_beginning_stay(head: str, tail: str) -> None:
    config = ChunkingConfig(16, 4)
    before = cut(f"{head}\n\n# Fixed\n\n{tail}", config)
    after = cut(f"{head}\n\n# Fixed\n\n{tail} and one more word", config)
    untouched = [c.chunk_id for c in before if c.end <= len(head)]
    assert untouched[:-1] == [c.chunk_id for c in after][: len(untouched[:-1])]


def test_the_same_text_twice_gets_two_ids() -> None:
    text = "# A\n\n" + "same words here " * 5 + "\n\n# A\n\n" + "same words here " * 5
    chunks = cut(text, ChunkingConfig(32, 0))
    assert len(chunks) == 2
    assert chunks[0].text == chunks[1].text
    assert chunks[0].chunk_id == chunk_id("d", chunks[0].text, 0)
    assert chunks[1].chunk_id == chunk_id("d", chunks[1].text, 1)


def test_ids_depend_on_the_document_but_not_on_its_place() -> None:
    text = "one two three"
    config = ChunkingConfig(16, 0)
    assert cut(text, config)[0].chunk_id == cut(f"\n\n{text}", config)[0].chunk_id
    assert cut(text, config)[0].chunk_id != cut(text, config, "other")[0].chunk_id


def test_sections_are_cut_at_headings_and_know_their_path() -> None:
    body = "word " * 20
    text = f"intro {body}\n# One\n{body}\n## Inner\n{body}\n# Two\n{body}"
    chunks = cut(text, ChunkingConfig(40, 8))
    paths = [(c.headings, c.text.splitlines()[0]) for c in chunks]
    assert paths == [
        ((), f"intro {body.strip()}"),
        (("One",), "# One"),
        (("One", "Inner"), "## Inner"),
        (("Two",), "# Two"),
    ]


def test_neighbours_overlap_within_a_section() -> None:
    text = " ".join(f"w{i}" for i in range(100))
    chunks = cut(text, ChunkingConfig(20, 5))
    for left, right in itertools.pairwise(chunks):
        shared = text[right.start : left.end].split()
        assert 1 <= len(shared) <= 5


def test_no_overlap_when_none_is_asked_for() -> None:
    text = " ".join(f"w{i}" for i in range(100))
    chunks = cut(text, ChunkingConfig(20, 0))
    assert [w for c in chunks for w in c.text.split()] == text.split()


def test_sentences_are_kept_whole_where_they_fit() -> None:
    text = "This is a sentence of eight words here. " * 10
    for chunk in cut(text, ChunkingConfig(24, 0)):
        assert chunk.text.startswith("This")
        assert chunk.text.endswith(".")


def test_text_no_tokenizer_knows_is_one_chunk_without_tokens() -> None:
    chunks = chunk_document(
        ParsedDocument("d", "T", " \u200b\u200b "),
        np.empty((0, 2), np.int32),
        ChunkingConfig(16, 0),
    )
    assert [(c.text, c.tokens) for c in chunks] == [("\u200b\u200b", 0)]


def test_a_blob_without_spaces_is_divided() -> None:
    text = "A" * 50_000
    config = ChunkingConfig(16, 4)
    chunks = chunk_document(
        ParsedDocument("d", "T", text), np.array([[0, len(text)]], np.int32), config
    )
    assert all(len(c.text) <= MAX_UNIT_CHARS for c in chunks)
    assert all(c.tokens <= config.tokens for c in chunks)
    assert chunks[-1].end == len(text)


def test_a_million_spaces_do_no_harm() -> None:
    text = "a" + " " * 1_000_000 + "b"
    chunks = cut(text, ChunkingConfig(16, 4))
    assert [c.text for c in chunks if c.text in "ab"] in (["a", "b"], [])
    assert sum(len(c.text) for c in chunks) <= len(text) + 10


def test_units_cover_the_text() -> None:
    text = "ab  cd\n\n# H\n" + "x" * (2 * MAX_UNIT_CHARS + 1)
    units = units_of(text, word_offsets(text), (Heading(8, 1, "H"),))
    assert units.starts[0] == 0
    assert units.starts[-1] == len(text)
    assert max(np.diff(units.starts)) <= MAX_UNIT_CHARS
    assert sum(units.tokens) == 3 + 1 + 3


@pytest.mark.parametrize(
    ("text", "unit", "border"),
    [
        ("ab cd", 1, Border.WORD),
        ("ab. cd", 2, Border.SENTENCE),
        ("ab\ncd", 1, Border.SENTENCE),
        ("ab\n\ncd", 1, Border.PARAGRAPH),
        ("ab, cd", 1, Border.WORD),
    ],
)
def test_borders(text: str, unit: int, border: Border) -> None:
    assert units_of(text, word_offsets(text), ()).border(unit) is border


def test_a_border_inside_a_word() -> None:
    units = units_of("abcd", np.array([[0, 2], [2, 4]], np.int32), ())
    assert units.border(1) is Border.INSIDE_WORD
