from __future__ import annotations

import random

import pytest

from llm_node.generate.stops import StopMatcher


def _stream(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    text = ""
    for piece in pieces:
        text += matcher.feed(piece)
        if matcher.stopped:
            return text, True
    return text + matcher.flush(), False


@pytest.mark.parametrize(
    ("pieces", "stops", "wanted"),
    [
        (["ab", "cd"], ["bc"], ("a", True)),
        (["a", "b", "c", "d"], ["abcd"], ("", True)),
        (["aab"], ["ab"], ("a", True)),
        (["abab", "abc"], ["ababc"], ("ab", True)),
        (["ab"], ["bc"], ("ab", False)),
        (["x", "y"], [], ("xy", False)),
        (["one two"], ["two", "one"], ("", True)),
    ],
)
def test_stop_strings(pieces: list[str], stops: list[str], wanted: tuple[str, bool]) -> None:
    assert _stream(pieces, stops) == wanted


def test_any_cutting_gives_the_same_text() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    draw = random.Random(seed)
    hits = 0
    for _ in range(300):
        text = "".join(draw.choice("ab\n") for _ in range(20))
        stop = "".join(draw.choice("ab\n") for _ in range(draw.randint(1, 5)))
        cuts = sorted(draw.randint(0, 20) for _ in range(5))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, 20], strict=True)]
        place = text.find(stop)
        hits += place >= 0
        assert _stream(pieces, [stop]) == (text[:place] if place >= 0 else text, place >= 0)
    assert 0 < hits < 300


def test_nothing_is_held_back_without_need() -> None:
    assert StopMatcher(["zzz"]).feed("plain text") == "plain text"


@pytest.mark.parametrize(
    ("early", "late", "stops", "wanted"),
    [
        (["a"], ["b"], ["ab"], ("", True)),  # ends behind the border
        (["xaby"], ["z"], ["ab"], ("xabyz", False)),  # ended before it
        (["ab", "a"], ["b"], ["ab"], ("ab", True)),
        (["a"], ["x"], ["a", "ab"], ("ax", False)),  # held back for one, passed for another
        (["a"], ["xa"], ["a", "ab"], ("ax", True)),
    ],
)
def test_stops_that_end_too_early_are_let_through(
    early: list[str], late: list[str], stops: list[str], wanted: tuple[str, bool]
) -> None:
    matcher = StopMatcher(stops)
    text = "".join(matcher.feed(piece, ends=False) for piece in early)
    text += "".join(matcher.feed(piece) for piece in late)
    assert (text + matcher.flush(), matcher.stopped) == wanted
