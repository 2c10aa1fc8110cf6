"""The figures' own arithmetic, and the questions they rest on."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bench.demo_quality import (
    Question,
    answerable,
    exact_distances,
    hit_rate,
    load_questions,
    recall,
    sample_sentences,
)
from coordinator.types import Chunk
from ragschema.types import SearchResult


def found(rows: list[list[int]]) -> SearchResult:
    ids = np.array(rows, np.int64)
    counts = np.full(len(rows), ids.shape[1], np.int32)
    return SearchResult(np.zeros(ids.shape, np.float32), ids, counts, 0)


def test_there_are_enough_distinct_questions_all_over_the_library() -> None:
    questions = load_questions()
    assert len({q.text for q in questions}) == len(questions) >= 60
    assert all(q.modules and q.text.endswith("?") for q in questions)
    assert len({min(q.modules).partition(".")[0] for q in questions}) >= 50


def test_few_questions_name_their_module() -> None:
    """Else they would test spelling; formats such as gzip cannot be asked for otherwise."""
    questions = load_questions()
    naming = [q for q in questions if set(re.findall(r"[a-z0-9]+", q.text.lower())) & q.modules]
    assert len(naming) < 0.2 * len(questions)


def test_recall_counts_what_was_found() -> None:
    rows = np.array([3, 5, 8, 9], np.int64)
    truth = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    assert recall(found([[3, 5]]), truth, rows, 2) == 1.0
    assert recall(found([[3, 9]]), truth, rows, 2) == 0.5
    assert recall(found([[8, 9]]), truth, rows, 2) == 0.0


def test_a_tie_with_the_last_counts_as_found() -> None:
    rows = np.arange(3, dtype=np.int64)
    truth = np.array([[0.1, 0.2, 0.2]], np.float32)
    assert recall(found([[0, 2]]), truth, rows, 2) == 1.0


def test_exact_distances_are_minus_the_inner_product() -> None:
    queries = np.eye(2, dtype=np.float32)
    np.testing.assert_array_equal(exact_distances(queries, queries), -np.eye(2))


def test_hit_rate(capsys: pytest.CaptureFixture[str]) -> None:
    questions = [Question("a?", frozenset({"x"})), Question("b?", frozenset({"y", "z"}))]
    assert hit_rate(questions, [["w", "x"], ["z"]]) == 1.0
    assert hit_rate(questions, [["w"], ["z"]]) == 0.5
    assert "missed: a?" in capsys.readouterr().err


def test_questions_without_an_answer_here_do_not_count() -> None:
    questions = [Question(str(i), frozenset({"m"})) for i in range(40)]
    extra = Question("other", frozenset({"not here"}))
    assert len(answerable([*questions, extra], frozenset({"m"}))) == 40
    with pytest.raises(AssertionError, match="only 0"):
        answerable(questions, frozenset({"else"}))


def chunk(text: str) -> Chunk:
    return Chunk(0, "c", "d", "t", 0, len(text), text, (), 1, {})


def test_sampled_sentences_are_whole_and_the_same_every_time() -> None:
    text = "Begin. This sentence has more than five words in it. Short one. The end is cut off"
    chunks = [chunk(text), chunk("nothing to take here")]
    assert sample_sentences(chunks, 5) == ["This sentence has more than five words in it."]
    assert sample_sentences(chunks, 5) == sample_sentences(chunks, 5)
