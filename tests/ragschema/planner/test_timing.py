"""Measured latencies in place of the model: where they stand, and what happens beyond them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.cli.app import run
from ragschema.errors import InvalidInput
from ragschema.measured import Measured
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import read_plan, write_plan
from ragschema.planner.problem import Decoding, Problem
from ragschema.planner.stages import StageTable
from ragschema.pool import Pool, parse_pool, with_profiles
from ragschema.profile import Profile, write_profile
from ragschema.workload import RagSchema, parse_schema
from tests.ragschema.profiles import profile, role

POOL = """
version: 1
accelerators: [{device: l4, count: 4}]
retrieval: [{device: epyc-9654, count: 2}]
"""
SCHEMA = """
version: 1
name: desk
generator: {model: llama-3-8b}
lengths: {question: 32, prompt: 300, output: 100}
database: {vectors: 1.0e+7, index: ivfpq, nlist: 1000, scan_share: 0.01}
reranker: {parameters: 3.0e+8, passages: 8, passage: 100}
"""
SMALL = SearchSpace(max_batch=8, max_decode_batch=32)
TOKENS = [64, 1024]


def measured(noise: float = 0.05) -> Profile:
    return profile(
        role("prefill", "llama-3-8b", {"batch": [1, 2, 4], "tokens": TOKENS},
             lambda batch, tokens: 0.01 + 1e-4 * batch * tokens, ("1", "batch*tokens"), noise),
        role("decode", "llama-3-8b", {"batch": [1, 4, 16], "context": TOKENS},
             lambda batch, context: 0.02 + 1e-3 * batch, ("1", "batch"), noise),
        role("rerank", "any", {"batch": [1, 64], "tokens": TOKENS},
             lambda batch, tokens: 1e-5 * batch * tokens, ("batch*tokens",), noise),
        role("pq_scan", "simd", {"batch": [1, 8], "codes": [1e3, 1e6]},
             lambda batch, codes: 1e-4 * batch + 1e-9 * codes, ("batch", "codes"), noise),
        role("retrieval_call", "simd", {"batch": [1, 8]}, lambda batch: 0.001, ("1",), noise),
    )  # fmt: skip


def schema() -> RagSchema:
    return parse_schema(SCHEMA, "s.yaml")


def pool(extrapolate: bool = False, noise: float = 0.05) -> Pool:
    found = Measured(measured(noise), extrapolate)
    return with_profiles(parse_pool(POOL, "p.yaml"), {"l4": found, "epyc-9654": found})


def stage(problem: Problem, name: str) -> StageTable:
    return next(s for s in problem.stages if s.name == name)


def seconds(problem: Problem, name: str, count: int, batch: int) -> float:
    table = stage(problem, name)
    return float(table.latency_s[table.row(count), table.batches.index(batch)])


def test_every_stage_is_what_was_measured() -> None:
    problem = problem_of(schema(), pool(), SMALL)
    assert seconds(problem, "prefill", 1, 4) == pytest.approx(0.01 + 1e-4 * 4 * 300, rel=1e-6)
    assert seconds(problem, "decode", 1, 16) == pytest.approx(100 * (0.02 + 0.016), rel=1e-6)
    assert seconds(problem, "rerank", 1, 8) == pytest.approx(1e-5 * 64 * 100, rel=1e-6)
    scan = 8e-4 + 1e-9 * 8 * 1e7 * 0.01
    assert seconds(problem, "retrieval", 1, 8) == pytest.approx(scan + 0.001, rel=1e-6)


def test_more_of_a_device_are_replicas_and_shards() -> None:
    problem = problem_of(schema(), pool(), SMALL)
    assert seconds(problem, "prefill", 2, 8) == seconds(problem, "prefill", 1, 4)
    assert seconds(problem, "decode", 2, 32) == seconds(problem, "decode", 1, 16)
    half = 8e-4 + 1e-9 * 8 * 1e7 * 0.01 / 2
    assert seconds(problem, "retrieval", 2, 8) == pytest.approx(half + 0.001, rel=1e-6)


def test_beyond_what_was_measured_nothing_is_planned() -> None:
    strict, wide = (problem_of(schema(), pool(e), SMALL) for e in (False, True))
    assert seconds(strict, "prefill", 1, 8) == float("inf")
    assert seconds(wide, "prefill", 1, 8) == pytest.approx(0.01 + 1e-4 * 8 * 300, rel=1e-6)
    narrow, far = stage(strict, "prefill").spread, stage(wide, "prefill").spread
    assert narrow is not None
    assert far is not None
    assert far[0, -1] > far[0, 0] == narrow[0, 0]


def test_nothing_measured_at_these_lengths_says_so() -> None:
    long = replace(schema(), lengths=replace(schema().lengths, prompt=4000))
    with pytest.raises(InvalidInput, match="prefill does not fit") as caught:
        problem_of(long, pool(), SMALL)
    assert "--allow-extrapolation" in (caught.value.hint or "")


def test_what_was_not_measured_is_modelled() -> None:
    plain = problem_of(schema(), parse_pool(POOL, "p.yaml"), SMALL)
    only = with_profiles(parse_pool(POOL, "p.yaml"), {"l4": Measured(profile(measured().roles[0]))})
    mixed = problem_of(schema(), only, SMALL)
    assert seconds(mixed, "prefill", 1, 1) != seconds(plain, "prefill", 1, 1)
    assert seconds(mixed, "decode", 1, 1) == seconds(plain, "decode", 1, 1)
    assert stage(mixed, "decode").spread is None


def test_another_models_figures_are_not_taken() -> None:
    other = replace(schema(), generator=replace(schema().generator, model="mistral-7b"))
    assert stage(problem_of(other, pool(), SMALL), "prefill").spread is None


def test_a_checkpoint_goes_by_its_folders_name() -> None:
    first = replace(measured().roles[0], variant="hf:llama-3-8b")
    known = with_profiles(parse_pool(POOL, "p.yaml"), {"l4": Measured(profile(first))})
    assert stage(problem_of(schema(), known, SMALL), "prefill").spread is not None


def test_a_plan_says_what_is_measured_and_how_sure_it_is(tmp_path: Path) -> None:
    plan = make_plan(schema(), pool(), space=SMALL)
    assert isinstance(plan, Plan)
    assert set(plan.provenance.values()) == {"measured"}
    for name, value in (("ttft_s", plan.schedule.ttft_s), ("qps", plan.schedule.qps),
                        ("tpot_s", plan.tpot_s)):  # fmt: skip
        between = plan.intervals[name]
        assert between.low < value < between.high
        assert 1.02 < between.high / value < 1.15, name
    write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").predicted["qps"] == plan.schedule.qps
    assert "provenance: measured" in (tmp_path / "plan.yaml").read_text(encoding="utf-8")


def test_noisier_measurements_are_less_sure() -> None:
    widths = []
    for noise in (0.05, 0.3):
        plan = make_plan(schema(), pool(noise=noise), space=SMALL)
        assert isinstance(plan, Plan)
        widths.append(plan.intervals["ttft_s"].high / plan.intervals["ttft_s"].low)
    assert widths[1] > widths[0] * 1.2


def test_a_modelled_plan_has_no_intervals() -> None:
    plan = make_plan(schema(), parse_pool(POOL, "p.yaml"), space=SMALL)
    assert isinstance(plan, Plan)
    assert set(plan.provenance.values()) == {"modelled"}
    assert plan.intervals == {}


def test_shared_decode_has_intervals_too() -> None:
    plan = make_plan(schema(), pool(), space=replace(SMALL, decoding=Decoding.TOGETHER))
    assert isinstance(plan, Plan)
    assert plan.intervals["tpot_s"].low < plan.tpot_s < plan.intervals["tpot_s"].high


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="no device 'l5'") as caught:
        with_profiles(parse_pool(POOL, "p.yaml"), {"l5": Measured(measured())})
    assert caught.value.hint == "use one of epyc-9654, l4"


def test_the_command_takes_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("s.yaml", SCHEMA), ("p.yaml", POOL)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    write_profile(measured(), tmp_path / "profile.json")
    command = ["plan", str(tmp_path / "s.yaml"), "--pool", str(tmp_path / "p.yaml"),
               "--profile", f"l4={tmp_path / 'profile.json'}", "--format", "json"]  # fmt: skip
    assert run(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predicted"]["provenance"] == "measured and modelled"
    assert set(found["predicted"]["intervals"]) == {"ttft_s", "tpot_s", "qps", "qps_per_chip"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--profile", "profile.json"], "names no device and file"),
        (["--profile", "l4=gone.json"], "gone.json"),
        (["--profile", "t4=FILE"], "no device 't4'"),
        (["--profile", "l4=FILE", "--profile", "l4=FILE"], "two profiles"),
    ],
)
def test_a_wrong_profile_is_named(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("s.yaml", SCHEMA), ("p.yaml", POOL)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    file = tmp_path / "profile.json"
    write_profile(measured(), file)
    more = [each.replace("FILE", str(file)) for each in given]
    assert run(["plan", str(tmp_path / "s.yaml"), "--pool", str(tmp_path / "p.yaml"), *more]) != 0
    assert said in " ".join(capsys.readouterr().err.split())
