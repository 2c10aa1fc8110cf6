"""The engine's benchmark on a tiny model: same requests, same tokens, honest counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.llm_engine import _attempt, ratios
from bench.llm_model import jobs, save_model
from bench.llm_ours import itl_ratio, prefix_ratio, throughput
from bench.llm_peers import Outcome, load_reference, padded_batches
from llm_node.engine.config import EngineConfig

TINY = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.5,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    save_model(directory, TINY, 3)
    return directory


def test_requests_are_long_tailed_and_the_same_for_a_seed() -> None:
    work = jobs(400, 5, 50_000)
    assert work == jobs(400, 5, 50_000)
    prompts = sorted(len(job.prompt) for job in work)
    assert prompts[0] >= 64
    assert prompts[-1] <= 512
    assert prompts[200] < (64 + 512) / 2.4
    assert {min(job.output for job in work), max(job.output for job in work)} <= set(range(16, 129))


def test_everybody_gives_the_same_tokens(tiny: Path) -> None:
    work = jobs(5, 2, 200, (4, 24), (3, 9))
    ours, ttft_s = throughput(tiny, work, EngineConfig(max_tokens_per_request=64))
    reference = load_reference(tiny)
    for static in (False, True):
        theirs = padded_batches(reference, work, 2, static)
        assert ours.tokens == theirs.tokens
    assert [len(ids) for ids in ours.tokens] == [job.output for job in work]
    assert 0 < ttft_s <= ours.wall_s


def test_a_cached_prefix_is_quicker(tiny: Path) -> None:
    assert prefix_ratio(tiny, EngineConfig(max_tokens_per_request=1200), 1, 200) > 1.0


def test_gaps_between_tokens_are_measured_while_prompts_arrive(tiny: Path) -> None:
    found = itl_ratio(tiny, EngineConfig(max_tokens_per_request=640), 1, 200)
    assert found["itl_p99_under_prefill_ms"] > 0
    assert found["itl_p99_under_prefill_ratio"] == pytest.approx(
        found["itl_p99_under_prefill_ms"] / found["itl_p50_ms"], abs=0.5, rel=0.2
    )


def test_a_contestant_that_fails_is_named() -> None:
    def fails() -> Outcome:
        raise RuntimeError("it stopped")

    assert _attempt(fails) == "RuntimeError: it stopped"


def test_ratios_take_the_best_setting_and_our_median() -> None:
    def outcome(wall_s: float, cpu_s: float) -> Outcome:
        return Outcome(((1, 2),), wall_s, cpu_s)

    ours = [outcome(1.0, 2.0), outcome(9.0, 9.0), outcome(2.0, 4.0)]
    found = {"static": outcome(6.0, 10.0), "static_cache": "no", "a": outcome(8.0, 9.0)}
    found["b"] = outcome(5.0, 12.0)
    result = ratios(ours, found, ["a", "b"])
    assert result["throughput_vs_static"] == 3.0
    assert result["throughput_vs_static_by_cpu"] == 2.5
    assert result["throughput_vs_static_cache"] is None
    assert result["throughput_vs_continuous"] == 2.5
    assert result["throughput_vs_continuous_by_cpu"] == 2.25
    assert result["tokens_per_s"]["static_cache"] == "no"
    assert ratios(ours, {"static": outcome(6.0, 10.0)}, ["a"])["throughput_vs_continuous"] is None
