"""A mix of requests: its means against requests that are drawn one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ragschema.lengths import PercentilesConfig
from ragschema.planner.cost.batches import answers, prompts
from ragschema.planner.mix import Mix, mix_of
from ragschema.workload import RagSchema, parse_schema

MIXED = """
version: 1
name: mixed
generator: {model: llama-3-8b}
lengths:
  question: 40
  prompt: {min: 100, p50: 800, p99: 3000}
  output: {min: 5, p50: 150, p99: 900}
database: {vectors: 1.0e+8}
reranker: {parameters: 3.0e+8, passages: 8, passage: 100}
cache: {document_kv_hit: 0.25}
classes:
  - {name: lookup, share: 0.5}
  - {name: chat, share: 0.3, retrieves: false}
  - {name: research, share: 0.2, per_sequence: 4, reranks: false, lengths: {output: 1000}}
"""


def mixed() -> RagSchema:
    return parse_schema(MIXED, "mixed.yaml")


def drawn(mix: Mix, count: int = 200_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prompt, cached and output tokens of requests, drawn without ``Mix.sample``."""
    seed = 5
    print("seed", seed)
    rng = np.random.default_rng(seed)
    prompt, cached, output = np.zeros((3, count))
    of = rng.choice(len(mix.classes), count, p=[c.share for c in mix.classes])
    for at, each in enumerate(mix.classes):
        mine = of == at
        prompt[mine] = rng.choice(each.prompt.array, mine.sum())
        output[mine] = rng.choice(each.output.array, mine.sum())
        cached[mine] = np.floor(np.maximum(0, prompt[mine] - 40) * each.hit)
    return prompt, cached, output


def test_one_length_is_the_plain_workload() -> None:
    text = MIXED.split("classes:")[0]
    schema = parse_schema(text, "plain.yaml")
    plain = replace(schema, lengths=replace(schema.lengths, prompt=840, output=100))
    mix = mix_of(plain)
    assert mix.read == prompts(840, 200)
    assert mix.written == answers(840, 100)
    assert mix.sample(10, 0) is None
    assert (mix.share("retrieval"), mix.share("rerank"), mix.again) == (1.0, 1.0, 0)


def test_shares_of_stages() -> None:
    mix = mix_of(mixed())
    assert mix.share("prefill") == pytest.approx(1.0)
    assert mix.share("retrieval") == pytest.approx(0.7)
    assert mix.share("rerank") == pytest.approx(0.5)
    assert mix.again == pytest.approx(0.2 * 3)


def test_what_is_read_is_the_mean_of_requests() -> None:
    mix = mix_of(mixed())
    prompt, cached, _ = drawn(mix)
    fresh = prompt - cached
    # Token i of the fresh ones attends to what is cached, and to itself and those before.
    attended = fresh * cached + fresh * (fresh + 1) / 2
    assert mix.read.tokens == pytest.approx(fresh.mean(), rel=0.01)
    assert mix.read.context == pytest.approx(attended.sum() / fresh.sum(), rel=0.01)
    assert mix.read.held == pytest.approx(prompt.mean(), rel=0.01)
    assert mix.read.held_spread == pytest.approx(prompt.std(), rel=0.01)


def test_what_is_written_is_met_as_long_as_it_takes() -> None:
    mix = mix_of(mixed())
    prompt, _, output = drawn(mix)
    assert mix.written.tokens == pytest.approx(output.mean(), rel=0.01)
    # A decode step meets a request as often as it has tokens to write.
    context = (output * (prompt + output / 2)).sum() / output.sum()
    assert mix.written.context == pytest.approx(context, rel=0.01)
    assert mix.written.held == pytest.approx((prompt + output).mean(), rel=0.01)
    assert mix.written.held_spread == pytest.approx((prompt + output).std(), rel=0.01)


def test_requests_by_chance_have_the_means() -> None:
    mix = mix_of(mixed())
    found = mix.sample(100_000, seed=2)
    assert found is not None
    assert found.names == ("lookup", "chat", "research")
    assert np.bincount(found.of) / 100_000 == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert found.output.mean() == pytest.approx(mix.output, rel=0.02)
    assert found.again.mean() == pytest.approx(mix.again, rel=0.02)
    assert found.work["prefill"].mean() == pytest.approx(1.0, rel=0.02)
    assert set(found.work) == {"prefill", "encode", "retrieval", "rerank"}
    skipped = found.work["rerank"][found.of != 0]
    assert not skipped.any()
    assert found.work["rerank"][found.of == 0].all()
    assert (found.output[found.of == 2] == 1000).all()


def test_the_same_seed_gives_the_same_requests() -> None:
    mix = mix_of(mixed())
    a, b, other = mix.sample(50, 1), mix.sample(50, 1), mix.sample(50, 2)
    assert a is not None
    assert b is not None
    assert other is not None
    assert (a.output == b.output).all()
    assert (a.output != other.output).any()


def test_a_class_without_retrieval_reads_the_question() -> None:
    chat = mix_of(mixed()).classes[1]
    assert chat.prompt.values == (40.0,)
    assert chat.hit == 0.0
    assert chat.again == 0


def test_its_own_prompt_comes_first() -> None:
    own = MIXED.replace("retrieves: false", "retrieves: false, lengths: {prompt: 77}")
    assert mix_of(parse_schema(own, "s")).classes[1].prompt.values == (77.0,)


def test_a_wrong_length_of_a_class_is_named() -> None:
    wrong = MIXED.replace("output: 1000", "output: {p50: 9, p99: 3}")
    with pytest.raises(Exception, match=r"classes\.2\.lengths\.output\.p99"):
        mix_of(parse_schema(wrong, "s"))


def test_longer_tails_hold_more() -> None:
    base = mixed()
    long = PercentilesConfig(min=5, p50=150, p99=9000)
    wide = mix_of(replace(base, lengths=replace(base.lengths, output=long)))
    assert wide.written.held_by(64) > mix_of(base).written.held_by(64)
