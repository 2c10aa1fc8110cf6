from __future__ import annotations

import pytest

from llm_node.generate.terms import stem, terms_of


@pytest.mark.parametrize(
    "family",
    [
        ("parse", "parses", "parsed", "parsing"),
        ("merge", "merges", "merged", "merging"),
        ("run", "runs", "running"),
        ("query", "queries"),
        ("match", "matches", "matched"),
        ("class", "classes"),
    ],
)
def test_forms_of_a_word_meet(family: tuple[str, ...]) -> None:
    assert len({stem(word) for word in family}) == 1, [stem(word) for word in family]


@pytest.mark.parametrize("word", ["string", "bus", "this", "größe", "utf8", "is"])
def test_words_that_only_look_inflected_stay_apart_from_nothing(word: str) -> None:
    assert stem(word)[:3] == word[:3]


def test_names_count_as_a_whole_and_in_parts() -> None:
    terms = terms_of("os.path.join and readFile and merge_sorted")
    assert {"os.path.join", "path", "join", "read", "fil", "merg", "sort"} <= set(terms)


def test_stop_words_are_left_out() -> None:
    assert terms_of("How do I use the and of what") == {}


def test_other_scripts_are_words_too() -> None:
    assert set(terms_of("Größe 漢字")) >= {"größe", "漢字"}
