"""Latency tables of a workload: classes, lengths, memory, what the network adds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ragschema.models import find_model
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.cost.batches import answers
from ragschema.planner.cost.inference import Precision
from ragschema.planner.problem import Decoding, Problem
from ragschema.planner.stages import StageTable
from ragschema.pool import Pool, parse_pool
from ragschema.workload import RagSchema, parse_schema
from tests.ragschema.planner.making import decode_s

POOL = """
version: 1
accelerators: [{device: h100-sxm, count: 4}]
retrieval: [{device: epyc-9654, count: 2}]
"""
SCHEMA = """
version: 1
name: desk
generator: {model: llama-3-8b}
lengths: {question: 32, prompt: 900, output: 200}
database: {vectors: 1.0e+8}
rewriter: {model: llama-3-8b}
reranker: {parameters: 3.0e+8, passages: 8, passage: 100}
"""
CLASSES = """
classes:
  - {name: lookup, share: 0.5}
  - {name: chat, share: 0.5, retrieves: false, rewrites: false}
"""
SMALL = SearchSpace(max_batch=8, max_decode_batch=32)


def schema(more: str = "") -> RagSchema:
    return parse_schema(SCHEMA + more, "s.yaml")


def pool(more: str = "") -> Pool:
    return parse_pool(POOL + more, "p.yaml")


def stage(problem: Problem, name: str) -> StageTable:
    return next(s for s in problem.stages if s.name == name)


def test_stages_that_half_of_the_requests_pass_by_take_less() -> None:
    whole, half = problem_of(schema(), pool(), SMALL), problem_of(schema(CLASSES), pool(), SMALL)
    for name in ("rewrite_prefill", "rewrite_decode", "retrieval", "rerank"):
        thin, full = stage(half, name), stage(whole, name)
        assert thin.share == 0.5
        assert (thin.latency_s < full.latency_s).all(), name
        assert thin.full_s == pytest.approx(full.latency_s)
    assert stage(half, "prefill").share == 1.0
    # A chat prompt is the question: 32 tokens instead of 900.
    assert (stage(half, "prefill").latency_s < 0.7 * stage(whole, "prefill").latency_s).all()


def test_a_stage_that_nobody_goes_through_is_left_out() -> None:
    chat = "classes: [{name: chat, share: 1, retrieves: false, rewrites: false}]"
    names = [s.name for s in problem_of(schema(chat), pool(), SMALL).stages]
    assert names == ["prefill", "decode"]


def test_the_kv_cache_goes_over_the_network() -> None:
    near = problem_of(schema(), pool(), SMALL)
    far = problem_of(schema(), pool("network: {hop_s: 1.0e-5, bytes_per_s: 1.0e+9}"), SMALL)
    model = find_model("llama-3-8b")
    kv_bytes = 900 * model.kv_values_per_token * 2
    added = stage(far, "decode").latency_s - stage(near, "decode").latency_s
    assert added == pytest.approx(np.full_like(added, 1e-5 + kv_bytes / 1e9))


def test_nothing_is_sent_where_prefill_and_decode_share() -> None:
    space = replace(SMALL, decoding=Decoding.EITHER)
    problems = [
        problem_of(schema(), pool(more), space)
        for more in ("", "network: {hop_s: 1.0e-5, bytes_per_s: 1.0e+9}")
    ]
    tables = [p.together for p in problems]
    assert tables[0] is not None
    assert tables[1] is not None
    assert (tables[0][1].latency_s == tables[1][1].latency_s).all()


def test_together_one_split_serves_both() -> None:
    problem = problem_of(schema(), pool(), replace(SMALL, decoding=Decoding.EITHER))
    assert problem.together is not None
    prefill, decode = problem.together
    assert prefill.memory is not None
    assert decode.memory is not None
    assert prefill.memory.owners == decode.memory.owners
    apart = stage(problem, "decode")
    assert (decode.latency_s >= apart.latency_s * (1 - 1e-12)).all()


def test_a_table_is_what_the_cost_model_says() -> None:
    decode = stage(problem_of(schema(), pool(), SMALL), "decode")
    chip = pool().chips[0].device
    wanted = decode_s(find_model("llama-3-8b"), chip, Precision(1.0, 2.0), 2, 16, answers(900, 200))
    assert wanted is not None
    assert decode.latency_s[decode.row(2), decode.batches.index(16)] == pytest.approx(wanted)


def test_longer_tails_leave_room_for_fewer() -> None:
    def largest(output: str) -> int:
        text = SCHEMA.replace("output: 200", f"output: {output}")
        small = parse_pool(POOL.replace("h100-sxm, count: 4", "l4, count: 1"), "p.yaml")
        space = SearchSpace(max_batch=1, max_decode_batch=1024, decoding=Decoding.TOGETHER)
        decode = problem_of(parse_schema(text, "s.yaml"), small, space).decode
        return max(b for b, s in zip(decode.batches, decode.latency_s[0], strict=True) if s < 1e9)

    assert largest("{min: 1, p50: 200, p99: 30000}") < largest("200")
