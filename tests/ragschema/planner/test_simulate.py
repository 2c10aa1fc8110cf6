"""The simulator against playing one burst, and against queueing theory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.planner_problems import random_problem
from ragschema.errors import InvalidInput
from ragschema.planner.arrivals import bursts, poisson
from ragschema.planner.decoding import Iteration
from ragschema.planner.mix import Requests
from ragschema.planner.play import Candidate, play
from ragschema.planner.played import Limits, Played
from ragschema.planner.problem import Problem
from ragschema.planner.schedule import Schedule
from ragschema.planner.search import search
from ragschema.planner.simulate import Policy, simulate
from ragschema.planner.stages import StageKind
from tests.ragschema.planner.making import table


def one_server(latency_s: list[float | None], batch: int = 1) -> tuple[Problem, Schedule]:
    """One stage before a decode that holds nobody up."""
    problem = Problem(
        (
            table("prefill", {1: latency_s}),
            table("decode", {1: [1e-6] * 12}, StageKind.DECODE),
        ),
        min_chips=1,
        max_chips=2,
    )
    schedule = play(problem, Candidate(((0,),), (1,), (batch,), 1, 2048))
    assert schedule is not None
    return problem, schedule


def played(
    problem: Problem, schedule: Schedule, rate: float, policy: Policy, count: int = 200_000
) -> Played:
    print("seed 11")
    return simulate(problem, schedule, poisson(rate, count, 11), policy, output=1)


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_a_burst_at_an_idle_system_is_the_played_schedule(seed: int) -> None:
    problem = random_problem(seed)
    if any(stage.delay for stage in problem.stages):
        return  # slots are counted here and not there
    for schedule in search(problem).points:
        burst = max(choice.batch for choice in schedule.choices[:-1])
        ttft_s = simulate(problem, schedule, np.zeros(burst), output=4).ttft_s
        assert ttft_s.mean() == pytest.approx(schedule.ttft_s, rel=1e-12)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_mean_wait_of_m_d_1(load: float) -> None:
    """rho D / (2 (1 - rho)), Pollaczek-Khinchine with a constant service time."""
    problem, schedule = one_server([1.0])
    waits = played(problem, schedule, load, Policy(default_timeout_s=0.0)).wait_s["prefill"]
    assert waits.mean() == pytest.approx(load / (2 * (1 - load)), rel=0.02)


@pytest.mark.parametrize("load", [0.5, 0.8, 0.99])
def test_every_wait_of_one_server_is_lindleys(load: float) -> None:
    """w' = max(0, w + D - gap), request by request."""
    problem, schedule = one_server([1.0])
    arrivals = poisson(load, 5_000, 4)
    waits = simulate(problem, schedule, arrivals, Policy(), output=1).wait_s["prefill"]
    steps = np.concatenate([[0.0], np.cumsum(1.0 - np.diff(arrivals))])
    assert np.allclose(waits, steps - np.minimum.accumulate(steps), atol=1e-6)


def test_mean_wait_for_a_full_batch_at_low_load() -> None:
    """(b - 1) / (2 lambda) to fill, and next to no queue."""
    problem, schedule = one_server([None, None, 0.001], batch=4)
    waits = played(problem, schedule, 1.0, Policy()).wait_s["prefill"][:-4]
    assert waits.mean() == pytest.approx(1.5, rel=0.02)


def test_mean_wait_of_full_batches_under_load() -> None:
    """E_b / D / 1 by Lindley's recursion over batches, plus the time to fill."""
    problem, schedule = one_server([None, None, 1.0], batch=4)
    waits = played(problem, schedule, 3.0, Policy()).wait_s["prefill"]
    rng = np.random.default_rng(5)
    gaps = rng.gamma(4, 1 / 3.0, 400_000)
    steps = np.concatenate([[0.0], np.cumsum(1.0 - gaps)])
    queueing = (steps - np.minimum.accumulate(steps)).mean()
    assert waits.mean() == pytest.approx(queueing + 1.5 / 3.0, rel=0.02)


def test_slots_are_erlangs_loss_free_queue() -> None:
    """M / D / c at a load where the queue is nearly empty: next to no wait."""
    delay = table("rewrite_decode", {1: [None, None, None, 1.0]}, delay=True)
    problem = Problem(
        (delay, table("prefill", {1: [1e-9]}), table("decode", {1: [1e-6] * 12}, StageKind.DECODE)),
        min_chips=1,
        max_chips=4,
    )
    schedule = play(problem, Candidate(((0,), (1,)), (1, 1), (8, 1), 1, 2048))
    assert schedule is not None
    waits = played(problem, schedule, 2.0, Policy(default_timeout_s=0.0), 20_000)
    assert waits.wait_s["rewrite_decode"].mean() < 0.01
    assert waits.ttft_s.mean() == pytest.approx(1.0, rel=0.02)


def test_a_time_out_bounds_the_wait_for_company() -> None:
    problem, schedule = one_server([0.01, 0.01, 0.01], batch=4)
    policy = Policy({"prefill": 0.5})
    waits = played(problem, schedule, 0.1, policy, 5_000).wait_s["prefill"]
    assert waits.max() <= 0.5 + 0.02
    assert np.median(waits) == pytest.approx(0.5)


def test_taking_what_is_queued_beats_waiting_for_full_batches_at_low_load() -> None:
    problem, schedule = one_server([0.1, 0.12, 0.14], batch=4)
    at_once = played(problem, schedule, 2.0, Policy(default_timeout_s=0.0), 20_000).ttft_s
    full = played(problem, schedule, 2.0, Policy(), 20_000).ttft_s[:-4]
    assert np.percentile(at_once, 99) < np.percentile(full, 99) / 3


def decoder(slots: int, per_token_s: float) -> tuple[Problem, Schedule]:
    batches = slots.bit_length()
    latency: list[float | None] = [per_token_s * 100] * batches
    problem = Problem(
        (table("prefill", {1: [1e-9]}), table("decode", {1: latency}, StageKind.DECODE)), 1, 2
    )
    schedule = play(problem, Candidate(((0,),), (1,), (1,), 1, slots))
    assert schedule is not None
    return problem, schedule


def test_decode_takes_its_tokens_time() -> None:
    problem, schedule = decoder(4, 0.01)
    result = simulate(problem, schedule, np.zeros(4), output=100)
    assert result.tpot_s == pytest.approx(np.full(4, 0.01))


def test_decode_without_a_free_slot_queues() -> None:
    problem, schedule = decoder(2, 0.01)
    result = simulate(problem, schedule, np.zeros(4), output=100)
    assert sorted(result.wait_s["decode"].tolist()) == pytest.approx([0, 0, 1.0, 1.0])


def test_a_fuller_batch_is_slower_for_all() -> None:
    latency: list[float | None] = [1.0, 2.0]
    problem = Problem(
        (table("prefill", {1: [1e-9]}), table("decode", {1: latency}, StageKind.DECODE)), 1, 2
    )
    schedule = play(problem, Candidate(((0,),), (1,), (1,), 1, 2))
    assert schedule is not None
    # Half a second alone gives 50 tokens; from then on both get 50 tokens a second.
    result = simulate(problem, schedule, np.array([0.0, 0.5]), output=100)
    assert result.end_s == pytest.approx([1.5, 2.0])


def test_sequences_that_retrieve_again_stall_until_their_batch_is_full() -> None:
    problem, schedule = decoder(4, 0.01)
    alone = Policy(iteration=Iteration(1, 1, 0.5))
    together = Policy(iteration=Iteration(1, 4, 0.5))
    arrivals = np.zeros(4)
    one = simulate(problem, schedule, arrivals, alone, output=100, seed=2)
    four = simulate(problem, schedule, arrivals, together, output=100, seed=2)
    assert one.end_s == pytest.approx(np.full(4, 1.5))
    # All four go on half a second after the last one stalled.
    assert four.end_s.max() - four.end_s.min() <= 1.0
    assert (four.end_s >= one.end_s - 1e-9).all()
    assert four.end_s.mean() > one.end_s.mean() + 0.05


def test_a_time_out_frees_stalled_sequences() -> None:
    problem, schedule = decoder(4, 0.01)
    policy = Policy(iteration=Iteration(1, 4, 0.5, timeout_s=0.1))
    result = simulate(problem, schedule, np.zeros(3), policy, output=100)
    assert result.end_s.max() <= 1.0 + 0.5 + 0.1 + 1e-6


def test_an_iterative_batch_larger_than_decode_is_refused() -> None:
    problem, schedule = decoder(4, 0.01)
    with pytest.raises(InvalidInput, match="never fills"):
        simulate(problem, schedule, np.zeros(4), Policy(iteration=Iteration(1, 8, 0.5)))


def test_a_negative_time_out_is_refused() -> None:
    problem, schedule = one_server([1.0])
    with pytest.raises(InvalidInput, match="no time-out"):
        simulate(problem, schedule, np.zeros(1), Policy({"prefill": -1.0}))


def test_goodput_counts_what_meets_every_limit() -> None:
    problem, schedule = one_server([1.0])
    result = simulate(problem, schedule, np.zeros(4), Policy(), output=1)
    assert result.ttft_s.tolist() == [1.0, 2.0, 3.0, 4.0]
    span = float(result.end_s.max())
    assert result.goodput_per_s(Limits(ttft_s=2.5)) == pytest.approx(2 / span)
    assert result.goodput_per_s(Limits(ttft_s=2.5, tpot_s=1e-9)) == 0.0


def test_a_report_is_flat_and_finite() -> None:
    problem, schedule = one_server([0.1, 0.12], batch=2)
    report = simulate(problem, schedule, bursts(2, 0.3, 50), Policy()).report()
    assert all(math.isfinite(value) for value in report.values())
    assert report["ttft_s_p50"] <= report["ttft_s_p99"]
    assert 0 < report["busy_share.prefill"] <= 1


def test_two_runs_are_equal() -> None:
    problem, schedule = decoder(4, 0.01)
    policy = Policy(iteration=Iteration(3, 2, 0.1))
    runs = [simulate(problem, schedule, poisson(3.0, 50, 1), policy, 100, seed=4) for _ in "ab"]
    assert (runs[0].end_s == runs[1].end_s).all()


def test_classes_have_percentiles_of_their_own() -> None:
    """Half of the requests are ten times as long to read as the others."""
    problem, schedule = one_server([0.1])
    count = 2_000
    of = np.arange(count) % 2
    work = {"prefill": np.where(of == 0, 2 / 11, 20 / 11)}
    again = np.zeros(count, dtype=np.int64)
    requests = Requests(np.full(count, 10.0), again, work, of, ("short", "long"))
    arrivals = np.arange(count) * 10.0
    report = simulate(problem, schedule, arrivals, Policy(), 10, requests=requests).report()
    assert report["ttft_s_p50.short"] == pytest.approx(0.2 / 11)
    assert report["ttft_s_p99.long"] == pytest.approx(2 / 11)
    assert report["ttft_s_p99.short"] < report["ttft_s_p50"] * 1.01 < report["ttft_s_p99"] * 1.02


def test_each_answer_is_as_long_as_its_request_says() -> None:
    problem, schedule = decoder(4, 0.01)
    output = np.array([10.0, 100.0, 50.0])
    again = np.array([0, 0, 2])
    requests = Requests(output, again, {}, np.zeros(3, dtype=np.int64), ("all",))
    policy = Policy(iteration=Iteration(None, 1, 0.5))
    played = simulate(problem, schedule, np.zeros(3), policy, 100, requests=requests)
    assert played.end_s == pytest.approx([0.1, 1.0, 1.5])
    assert played.classes == {}
    assert played.tpot_s == pytest.approx([0.01, 0.01, 0.03])


def test_whoever_finds_too_many_under_way_is_refused() -> None:
    """Of a burst of ten, two are let in; the next ones once one of these has ended."""
    problem, schedule = one_server([1.0])
    arrivals_s = np.array([0.0] * 10 + [1.5, 1.6, 2.5])
    found = simulate(problem, schedule, arrivals_s, output=1, most=2)
    assert found.refused == 9
    assert found.arrival_s.tolist() == [0.0, 0.0, 1.5, 2.5]
    assert found.ttft_s == pytest.approx([1.0, 2.0, 1.5, 1.5])
    assert all(len(waits) == 4 for waits in found.wait_s.values())


def test_a_limit_that_is_never_met_changes_nothing() -> None:
    problem, schedule = one_server([0.5])
    arrivals_s = poisson(1.0, 500, 3)
    free = simulate(problem, schedule, arrivals_s, output=1)
    held = simulate(problem, schedule, arrivals_s, output=1, most=500)
    assert held.refused == 0
    np.testing.assert_array_equal(free.ttft_s, held.ttft_s)
