"""Requests and their times: drawn, or as a trace tells."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.load.prompts import Part, PartKind, text_of, topical_question
from coordinator.load.ragpulse import is_ragpulse, read_ragpulse
from coordinator.load.workload import (
    Pace,
    Shape,
    from_columns,
    from_ragpulse,
    paced,
    read_questions,
    synthetic,
)
from ragschema.errors import InvalidInput, NotFound, RagrigError
from ragschema.lengths import PercentilesConfig
from ragschema.traffic import ArrivalsConfig

SEED = 7
ROWS: list[dict[str, Any]] = [
    {"timestamp": "93", "input_length": 60, "output_length": 9, "session_id": "b",
     "hash_ids": {"sys_prompt": [1], "passages_ids": [12, 11], "history": [], "web_search": [],
                  "user_input": [42]}},
    {"timestamp": "82", "input_length": 50, "output_length": 5, "session_id": "a",
     "hash_ids": {"sys_prompt": [1], "passages_ids": [11], "history": [30], "web_search": [],
                  "user_input": [41]}},
    {"timestamp": "102", "input_length": 7, "output_length": 3, "session_id": "c",
     "hash_ids": {"sys_prompt": [], "passages_ids": [], "history": [], "web_search": [],
                  "user_input": [43]}},
    {"timestamp": "122", "input_length": 40, "output_length": 1, "session_id": "c",
     "hash_ids": {"sys_prompt": [1], "passages_ids": [11], "history": [], "web_search": [],
                  "user_input": [44]}},
]  # fmt: skip
SIDES = {
    "sys_prompt": [{"sys_prompt_id": 1, "token_length": 20}],
    "passages": [{"passage_id": 11, "token_length": 16}, {"passage_id": 12, "token_length": 15}],
    "history": [{"history_id": 30, "token_length": 6}],
    "user_input": [{"user_input_id": n, "token_length": n - 36} for n in (41, 42, 43, 44)],
}


def write_trace(folder: Path, pack: bool = False, joined: str = "\n", sides: bool = True) -> Path:
    files = {"trace": ROWS} | (SIDES if sides else {})
    for number, (name, rows) in enumerate(files.items()):
        text = joined.join(json.dumps(row) for row in rows)
        path = folder / f"{number}_{name}.jsonl{'.gz' if pack else ''}"
        path.write_bytes(gzip.compress(text.encode()) if pack else text.encode())
    return folder / f"0_trace.jsonl{'.gz' if pack else ''}"


@pytest.mark.parametrize(
    ("pack", "joined"), [(False, "\n"), (True, "\n"), (False, ""), (True, " ")]
)
def test_ragpulse_is_read_as_it_is_published(tmp_path: Path, pack: bool, joined: str) -> None:
    """Lines or objects one after another, packed or not."""
    path = write_trace(tmp_path, pack, joined)
    assert is_ragpulse(path)
    rows = read_ragpulse(path)
    assert [r.at_s for r in rows] == [82, 93, 102, 122], "by time, not as written"
    assert [r.output_tokens for r in rows] == [5, 9, 3, 1]
    assert rows[0].parts == (
        Part(PartKind.SYSTEM, 1, 20),
        Part(PartKind.PASSAGE, 11, 16),
        Part(PartKind.HISTORY, 30, 6),
        Part(PartKind.QUESTION, 41, 5),
    )
    assert [(r.topic, r.rank) for r in rows] == [(11, 0), (12, 1), (None, None), (11, 0)]


def test_parts_without_a_length_share_what_is_left(tmp_path: Path) -> None:
    rows = read_ragpulse(write_trace(tmp_path, sides=False))
    assert [p.tokens for p in rows[0].parts] == [12, 12, 12, 12]
    assert rows[0].input_tokens == 50


def test_whole_prompts_repeat_where_the_trace_does(tmp_path: Path) -> None:
    plan = from_ragpulse(write_trace(tmp_path), None, Pace(), None)
    texts = [request.messages() for request in plan.requests]
    assert texts[0][0] == texts[1][0], "the same system prompt"
    passage = text_of(Part(PartKind.PASSAGE, 11, 16))
    assert [passage in t[-1]["content"] for t in texts] == [True, True, False, True]
    assert [r.prompt_tokens for r in plan.requests] == [47, 57, 7, 44]
    assert [len(t[-1]["content"].split()) for t in texts] == [27, 37, 7, 24]


def test_popularity_of_passages_becomes_popularity_of_questions(tmp_path: Path) -> None:
    path = write_trace(tmp_path)
    plan = from_ragpulse(path, None, Pace(), ("first?", "second?"))
    assert [r.question for r in plan.requests] == ["first?", "second?", "second?", "first?"]
    drawn = from_ragpulse(path, None, Pace(), ()).requests
    shared = Counter((drawn[0].question or "").split()[:3])
    assert shared == Counter((drawn[3].question or "").split()[:3]), "one passage, one topic"
    assert [len((r.question or "").split()) for r in drawn] == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("pace", "times_s"),
    [
        (Pace(), [0, 11, 20, 40]),
        (Pace(speed=10), [0, 1.1, 2, 4]),
        (Pace(rate_per_s=2), [0, 0.55, 1, 2]),
    ],
)
def test_the_times_of_a_trace_can_be_scaled(
    tmp_path: Path, pace: Pace, times_s: list[float]
) -> None:
    plan = from_ragpulse(write_trace(tmp_path), None, pace, None)
    np.testing.assert_allclose(plan.times_s if plan.times_s is not None else [], times_s)


def test_only_the_first_requests(tmp_path: Path) -> None:
    plan = from_ragpulse(write_trace(tmp_path), 2, Pace(), None)
    assert [r.output_tokens for r in plan.requests] == [5, 9]


def test_another_trace_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text("at,in,out\n5,10,3\n4,20,0\n9,30,4\n")
    assert not is_ragpulse(path)
    plan = from_columns(path, ("at", "in", "out"), None, Pace())
    assert plan.times_s is not None
    assert plan.times_s.tolist() == [0, 1, 5]
    assert [(r.prompt_tokens, r.output_tokens) for r in plan.requests] == [
        (20, 1),
        (10, 3),
        (30, 4),
    ]
    with pytest.raises(InvalidInput, match="'when'"):
        from_columns(path, ("when", "in", "out"), None, Pace())


def row(**changed: Any) -> str:
    return json.dumps(
        {"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": {}} | changed
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "has no requests"),
        ('{"timestamp": 1', "object 1 is not JSON"),
        ("[1]", "object 1 is not JSON"),
        (row(timestamp="x"), "timestamp"),
        (row(timestamp="nan"), "finite"),
        (row(input_length=-1), "input_length"),
        (row(hash_ids=None), "hash_ids"),
        (row(hash_ids={"passages_ids": [-4]}), "passages_ids"),
    ],
)
def test_a_broken_trace_is_named(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        read_ragpulse(path)
    assert part in str(caught.value)


def test_lengths_beside_a_trace_are_checked_too(tmp_path: Path) -> None:
    path = write_trace(tmp_path)
    (tmp_path / "2_passages.jsonl").write_text('{"passage_id": 11}')
    with pytest.raises(InvalidInput, match=r"2_passages.jsonl, object 1"):
        read_ragpulse(path)


def test_no_trace_and_no_gzip(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_ragpulse(tmp_path / "none.jsonl")
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(b"no gzip")
    with pytest.raises(InvalidInput, match="cannot read"):
        read_ragpulse(path)


def test_drawn_requests_depend_on_the_seed_alone() -> None:
    shape = Shape(PercentilesConfig(p50=20, p99=60), 9)
    once, again = synthetic(shape, 50, SEED), synthetic(shape, 50, SEED)
    assert once == again
    assert once != synthetic(shape, 50, SEED + 1)
    sizes = [r.prompt_tokens for r in once]
    assert 0 < min(sizes) < 20 < max(sizes) <= 60
    assert len({r.messages()[0]["content"] for r in once}) == 50


@pytest.mark.parametrize(
    "arrivals",
    [ArrivalsConfig(), ArrivalsConfig("gamma", cv=3.0), ArrivalsConfig("bursts", size=5)],
)
def test_arrivals_have_their_rate(arrivals: ArrivalsConfig) -> None:
    plan = paced(synthetic(Shape(), 4000, SEED), arrivals, 10.0, SEED)
    assert plan.times_s is not None
    assert (np.diff(plan.times_s) >= 0).all()
    assert len(plan.times_s) / plan.times_s[-1] == pytest.approx(10, rel=0.2), f"seed {SEED}"


def test_questions_of_a_file(tmp_path: Path) -> None:
    plain = tmp_path / "q.txt"
    plain.write_text("How?\n\n  Why? \n")
    assert read_questions(plain) == ("How?", "Why?")
    lines = tmp_path / "q.jsonl"
    lines.write_text('{"question": "How?"}\n{"text": " Why? "}\n')
    assert read_questions(lines) == ("How?", "Why?")
    asked = synthetic(Shape(questions=("How?", "Why?")), 20, SEED)
    assert {r.question for r in asked} == {"How?", "Why?"}


@pytest.mark.parametrize("text", ["", "\n", '{"question": 3}', "[]", "{"])
def test_files_without_questions(tmp_path: Path, text: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(RagrigError, match=r"question|JSON"):
        read_questions(path)


def test_questions_of_one_topic_share_most_words() -> None:
    one, two, other = (
        topical_question(5, 1, 12),
        topical_question(5, 2, 12),
        topical_question(6, 1, 12),
    )
    assert one.split()[:8] == two.split()[:8] != other.split()[:8]
    assert one != two
    assert len(topical_question(1, 1, 1).split()) == 1
