"""Pieces of prompts read beside answers: steps by hand, and the rates that they sustain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_node.engine.config import EngineConfig
from ragschema.llm_rig import PREFILL_CHUNK, STEP_TOKENS
from ragschema.local import CORE, local_pool
from ragschema.measured import Measured
from ragschema.planner.arrivals import poisson
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.mixed_decoding import Engines, MixedDecoding
from ragschema.planner.mixing import Steps, answers_s, steps_of
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import read_plan, write_plan
from ragschema.planner.play import Candidate, play
from ragschema.planner.played import Played
from ragschema.planner.problem import Decoding, Problem
from ragschema.planner.queueing import Event
from ragschema.planner.schedule import Schedule
from ragschema.planner.simulate import Policy, simulate
from ragschema.pool import Pool, parse_pool, with_profiles
from ragschema.profile import RoleProfile
from ragschema.workload import parse_schema
from tests.ragschema.profiles import MACHINE, profile, role

#: A step takes 1 s, and 1 s more with a piece of 10 tokens; read alone, 0.1 s a token.
STEPS = Steps([1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], 10, 100, 0.1)


def run(engine: MixedDecoding | Engines, arrivals: dict[float, list[int]]) -> None:
    """Plays what comes when, and everything the engine plans."""
    events: list[Event] = []
    coming = sorted(arrivals.items())
    while coming or events:
        events.sort()
        if coming and (not events or coming[0][0] < events[0][0]):
            now, requests = coming.pop(0)
            events += engine.enter(now, requests)
        else:
            now, what = events.pop(0)
            events += engine.on_event(now, what)


def test_the_engines_defaults_are_those_that_plans_assume() -> None:
    assert EngineConfig().step_tokens == STEP_TOKENS
    assert EngineConfig().prefill_chunk == PREFILL_CHUNK


def test_a_request_alone_is_read_whole_and_written_step_by_step() -> None:
    engine = MixedDecoding(STEPS, [30.0], [5.0])
    run(engine, {7.0: [0]})
    assert engine.first_token_s == [pytest.approx(10.0)]
    assert engine.ended_s == [pytest.approx(14.0)]
    assert engine.busy_s == pytest.approx(7.0)
    assert engine.wait_s == [0.0]


def test_who_comes_later_waits_for_a_step_and_is_read_in_pieces() -> None:
    """The first has its token at 3; at 4.5 the second comes, is let in at 5, and needs three
    steps of 2 s, the last of them for half a piece."""
    engine = MixedDecoding(STEPS, [30.0, 25.0], [10.0, 3.0])
    run(engine, {0.0: [0], 4.5: [1]})
    assert engine.wait_s[1] == pytest.approx(0.5)
    assert engine.first_token_s == pytest.approx([3.0, 5.0 + 2 + 2 + 1.5])
    # Steps of the first one: two of 1 s before, three beside the second, and four more.
    assert engine.ended_s[0] == pytest.approx(10.5 + 4)
    assert engine.ended_s[1] == pytest.approx(10.5 + 2)


def test_prompts_that_come_together_share_a_step() -> None:
    """Up to the tokens of a step, and what a piece has left goes to the next prompt."""
    engine = MixedDecoding(STEPS, [60.0, 30.0, 20.0], [9.0, 9.0, 9.0])
    run(engine, {0.0: [0, 1, 2]})
    # 100 tokens of 110 at once; 10 of the last one are left, for one more step.
    assert engine.first_token_s == pytest.approx([10.0, 10.0, 12.0])


def test_no_more_answers_than_slots() -> None:
    steps = replace(STEPS, alone_s=[1.0, 1.0], mixed_s=[2.0, 2.0])
    engine = MixedDecoding(steps, [10.0] * 3, [4.0] * 3)
    run(engine, {0.0: [0, 1, 2]})
    assert engine.first_token_s[:2] == pytest.approx([2.0, 2.0])
    assert engine.ended_s[0] == pytest.approx(5.0)
    # The third is read when both have ended.
    assert engine.first_token_s[2] == pytest.approx(6.0)


def test_halted_it_goes_on_where_it_stood() -> None:
    engine = MixedDecoding(STEPS, [10.0, 10.0], [5.0, 1.0])
    events = engine.enter(0.0, [0])
    ((now, what),) = events
    ((end_s, what),) = engine.on_event(now, what)
    assert end_s == pytest.approx(5.0)
    engine.halt(2.5)
    assert engine.enter(3.0, [1]) == []
    assert engine.on_event(end_s, what) == []
    ((now, what),) = engine.go_on(10.0)
    # Half a step was left of the second; then the other is let in.
    assert now == pytest.approx(10.5)
    ((now, what),) = engine.on_event(now, what)
    assert now == pytest.approx(12.5)
    engine.on_event(now, what)
    assert engine.first_token_s[1] == engine.ended_s[1] == pytest.approx(12.5)


def test_a_question_is_embedded_between_two_steps() -> None:
    """Alone, its prompt follows at once. Beside an answer it waits for a step, holds the other
    up for half a second, and its prompt is let in behind the step after that."""
    engine = MixedDecoding(replace(STEPS, embed_s=0.5), [10.0, 10.0], [9.0, 2.0])
    run(engine, {0.0: [0], 3.0: [1]})
    assert engine.embedded_s == pytest.approx([0.5, 1.0])
    # Embedded at 4.0 after the step that ends at 3.5; the next one ends at 5.0.
    assert engine.first_token_s == pytest.approx([1.5, 7.0])
    assert engine.wait_s == pytest.approx([0.0, 1.0])
    assert engine.ended_s[1] == pytest.approx(8.0)
    # Eight steps of 1 s, one of them with a piece, and half a second.
    assert engine.ended_s[0] == pytest.approx(1.5 + 8 + 1 + 0.5)


def test_two_engines_share_what_comes() -> None:
    """Each takes the next one; the third goes to the one that has ended its first."""
    both = Engines(2, STEPS, [10.0, 20.0, 10.0], [2.0, 5.0, 1.0])
    run(both, {0.0: [0, 1], 2.5: [2]})
    assert both.first_token_s == pytest.approx([1.0, 2.0, 3.5])
    assert both.ended_s == pytest.approx([2.0, 6.0, 3.5])
    assert both.busy_s == pytest.approx((2.0 + 1.0 + 6.0) / 2)
    assert both.read_s == pytest.approx(1.0 + 2.0 + 1.0)
    assert both.wait_s == [0.0, 0.0, 0.0]


def measured() -> Pool:
    """A device that takes 1 ms a token to read, and 20 ms and 1 ms a sequence to write."""
    over = {"batch": [1, 2, 4, 8, 16], "tokens": [32, 512]}
    pieces = role("mixed", "llama-3-8b", over,
                  lambda batch, tokens: 0.07 + 1e-3 * batch, ("1", "batch"))  # fmt: skip
    found = profile(
        role("prefill", "llama-3-8b", over,
             lambda batch, tokens: 1e-3 * batch * tokens, ("batch*tokens",)),
        role("decode", "llama-3-8b", over,
             lambda batch, tokens: 0.02 + 1e-3 * batch, ("1", "batch")),
        replace(pieces, about={"piece": 48.0}),
    )  # fmt: skip
    text = "version: 1\naccelerators: [{device: l4, count: 1}]\n"
    return with_profiles(parse_pool(text, "p.yaml"), {"l4": Measured(found)})


def planned(output: int, slots: int, prompt: int = 192) -> tuple[Problem, Schedule]:
    schema = parse_schema(
        f"version: 1\nname: x\ngenerator: {{model: llama-3-8b}}\n"
        f"lengths: {{question: 32, prompt: {prompt}, output: {output}}}\n",
        "s.yaml",
    )
    problem = problem_of(
        schema, measured(), SearchSpace(max_decode_batch=16, decoding=Decoding.TOGETHER)
    )
    schedule = play(problem, Candidate(((0, 1),), (1,), (1,), 1, slots))
    assert schedule is not None
    return problem, schedule


def saturated(problem: Problem, schedule: Schedule, output: int) -> tuple[Played, float]:
    requests = 60 * schedule.choices[-1].batch
    played = simulate(problem, schedule, np.zeros(requests), Policy(), output=output)
    middle = np.sort(played.end_s)[requests // 4 : 3 * requests // 4]
    return played, (len(middle) - 1) / (middle[-1] - middle[0])


@pytest.mark.parametrize(("output", "slots"), [(64, 2), (64, 8), (64, 16), (9, 16)])
def test_the_search_finds_the_rate_that_the_engine_sustains(output: int, slots: int) -> None:
    """Bound by decode, and in the last case by reading, where not all slots are full."""
    problem, schedule = planned(output, slots)
    played, rate = saturated(problem, schedule, output)
    assert rate == pytest.approx(schedule.qps, rel=0.04)
    assert played.busy_share["prefill+decode"] == pytest.approx(1.0, rel=1e-6)


def test_steps_of_one_batch() -> None:
    """Four pieces a prompt and 63 more tokens: so many steps on each of 9 places."""
    problem, _ = planned(64, 8)
    table = problem.stages_in(((0, 1),))[-1]
    assert table.mixing is not None
    answer_s = answers_s(table.mixing, table.batches, 64)[0][table.batches.index(8)]
    per_step = 9 / (63 + 4)
    step_s = 0.02 + 1e-3 * 63 * per_step + per_step * 4 * 0.05
    assert answer_s == pytest.approx(8 * step_s / per_step, rel=1e-3)
    steps = steps_of(table.mixing, table.batches, 0, 8)
    assert steps.slots == 9
    assert steps.alone_s[2] == pytest.approx(0.023, rel=1e-3)
    assert steps.alone_s[8] == pytest.approx(0.029, rel=1e-3)
    assert steps.writing_s(3, 24) == pytest.approx(0.023 + 0.025, rel=1e-3)


def test_others_are_read_while_answers_go_on() -> None:
    """Half a load: the p50 of TTFT is a few steps, and TPOT between both kinds of steps."""
    problem, schedule = planned(64, 8)
    arrivals = poisson(0.5 * schedule.qps, 2000, seed=3)
    played = simulate(problem, schedule, arrivals, Policy(), output=64)
    report = played.report()
    assert 0.19 < report["ttft_s_p50"] < 0.6
    assert 0.021 < report["tpot_s_p50"] < 0.07
    assert report["wait_s_mean.prefill"] > 0
    assert played.service_s["prefill"] > 0.19


def test_a_profile_without_such_steps_reads_between_answers() -> None:
    pool = measured()
    found = pool.measured["l4"].profile
    roles = tuple(each for each in found.roles if each.role != "mixed")
    plain = with_profiles(pool, {"l4": Measured(replace(found, roles=roles))})
    schema = parse_schema(
        "version: 1\nname: x\ngenerator: {model: llama-3-8b}\n"
        "lengths: {question: 32, prompt: 192, output: 64}\n",
        "s.yaml",
    )
    space = SearchSpace(max_decode_batch=16, decoding=Decoding.TOGETHER)
    assert problem_of(schema, plain, space).stages_in(((0, 1),))[-1].mixing is None


def with_threads(threads: int, quicker: float) -> list[RoleProfile]:
    """Of which a step of one answer takes 30 ms with one thread."""
    over = {"batch": [1, 2, 4, 8, 16], "tokens": [32, 512]}
    pieces = role("mixed", "llama-3-8b", over,
                  lambda batch, tokens: (0.07 + 0.01 * batch) / quicker,
                  ("1", "batch"))  # fmt: skip
    found = (
        role("prefill", "llama-3-8b", over,
             lambda batch, tokens: 1e-3 * batch * tokens / quicker, ("batch*tokens",)),
        role("decode", "llama-3-8b", over,
             lambda batch, tokens: (0.02 + 0.01 * batch) / quicker, ("1", "batch")),
        replace(pieces, about={"piece": 48.0}),
    )  # fmt: skip
    return [replace(each, threads=threads) for each in found]


def cores(quicker: float) -> Pool:
    """Two cores of the made-up machine; ``quicker``: two threads than one."""
    found = profile(*with_threads(1, 1.0), *with_threads(2, quicker))
    pool = local_pool(replace(MACHINE, memory_gib=64.0), None, False)
    return with_profiles(pool, {CORE: Measured(found, cores=True)})


def on_two_cores(pool: Pool) -> Plan:
    schema = parse_schema(
        "version: 1\nname: x\ngenerator: {model: llama-3-8b}\n"
        "lengths: {question: 32, prompt: 192, output: 64}\n",
        "s.yaml",
    )
    space = SearchSpace(max_decode_batch=16, decoding=Decoding.TOGETHER)
    plan = make_plan(schema, replace(pool, min_chips=2), space=space)
    assert isinstance(plan, Plan)
    return plan


def test_cores_are_divided_where_two_threads_are_less_than_twice_as_quick(tmp_path: Path) -> None:
    plan = on_two_cores(cores(1.4))
    whole = on_two_cores(cores(2.5))
    write_plan(plan, tmp_path / "plan.yaml")
    (group,) = read_plan(tmp_path / "plan.yaml").groups
    assert (group.accelerators, group.processes) == (2, 2)
    write_plan(whole, tmp_path / "whole.yaml")
    (group,) = read_plan(tmp_path / "whole.yaml").groups
    assert (group.accelerators, group.processes) == (2, 1)


def test_two_engines_sustain_what_the_search_says() -> None:
    plan = on_two_cores(cores(1.0))
    _, rate = saturated(plan.problem, plan.schedule, 64)
    assert rate == pytest.approx(plan.schedule.qps, rel=0.04)


def test_embedding_costs_engines_time() -> None:
    """Of 8 answers in a row, one question each."""
    found = measured().measured["l4"].profile
    embed = role("embed", "minilm", {"batch": [1, 4], "tokens": [8, 64]},
                 lambda batch, tokens: 0.2 * batch, ("batch",))  # fmt: skip
    text = (
        "version: 1\naccelerators: [{device: l4, count: 1}]\n"
        "retrieval: [{device: epyc-9654, count: 1}]\n"
    )
    pool = with_profiles(
        parse_pool(text, "p.yaml"), {"l4": Measured(replace(found, roles=(*found.roles, embed)))}
    )
    schema = parse_schema(
        "version: 1\nname: x\ngenerator: {model: llama-3-8b}\n"
        "lengths: {question: 32, prompt: 192, output: 64}\n"
        "database: {vectors: 1.0e+6, index: ivfpq, nlist: 1000, scan_share: 0.01}\n",
        "s.yaml",
    )
    space = SearchSpace(max_batch=1, max_decode_batch=8, decoding=Decoding.TOGETHER)
    problem = problem_of(schema, pool, space)
    schedule = play(problem, Candidate(((0,), (1, 2)), (1, 1), (1, 1), 1, 8, servers=1))
    assert schedule is not None
    table = problem.stages_in(schedule.placement)[-1]
    assert table.mixing is not None
    assert table.mixing.embed_s == pytest.approx([0.2])
    plain = replace(table.mixing, embed_s=np.zeros(1))
    more = answers_s(table.mixing, table.batches, 64) - answers_s(plain, table.batches, 64)
    assert more[0] == pytest.approx([0.2 * batch for batch in table.batches])
    # Questions come as answers end: all at once, they would be embedded before all else.
    arrivals = np.arange(400) / (1.2 * schedule.qps)
    ended_s = np.sort(simulate(problem, schedule, arrivals, Policy(), output=64).end_s)
    middle = ended_s[(ended_s > 0.3 * arrivals[-1]) & (ended_s < arrivals[-1])]
    rate = (len(middle) - 1) / (middle[-1] - middle[0])
    assert rate == pytest.approx(schedule.qps, rel=0.1)


def test_processes_on_one_machine_hold_each_other_up() -> None:
    """A quarter longer beside another one: divided cores then answer a fifth less, and prefill and
    decode apart take a quarter longer."""
    pool = cores(1.0)
    known = pool.measured[CORE]
    crowded = replace(
        role("crowded", "llama-3-8b", {"processes": [1, 2]},
             lambda processes: 0.75 + 0.25 * processes, ("1", "processes")), threads=1,
    )  # fmt: skip
    roles = (*known.profile.roles, crowded)
    found = replace(known, profile=replace(known.profile, roles=roles))
    more = with_profiles(pool, {CORE: found})
    assert on_two_cores(more).schedule.qps == pytest.approx(on_two_cores(pool).schedule.qps / 1.25)
    schema = parse_schema(
        "version: 1\nname: x\ngenerator: {model: llama-3-8b}\n"
        "lengths: {question: 32, prompt: 192, output: 64}\n",
        "s.yaml",
    )
    space = SearchSpace(max_decode_batch=16, decoding=Decoding.APART)
    alone, beside = (problem_of(schema, each, space).decode.latency_s for each in (pool, more))
    assert beside[0, :4] == pytest.approx(1.25 * alone[0, :4])
