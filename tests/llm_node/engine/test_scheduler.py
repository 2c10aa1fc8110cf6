"""The scheduler alone: queues and blocks, no model and no torch."""

from __future__ import annotations

import subprocess
import sys

from llm_node.engine.blocks import BlockPool
from llm_node.engine.config import EngineConfig
from llm_node.engine.request import EngineRequest, Sequence, SequenceState
from llm_node.engine.scheduler import Scheduler, StepPlan
from ragschema.types import Sampling


class _Bench:
    def __init__(self, blocks: int, **config: int) -> None:
        self.pool = BlockPool(blocks)
        sizes = {"block_tokens": 4, "max_running": 4, "step_tokens": 16, "prefill_chunk": 6}
        self.scheduler = Scheduler(EngineConfig(**{**sizes, **config}), self.pool)  # type: ignore[arg-type]
        self.arrivals = 0

    def add(self, name: str, tokens: int, priority: int = 0, first: int = 0) -> Sequence:
        ids = tuple(range(first, first + tokens))
        request = EngineRequest(name, ids, Sampling(), priority=priority)
        sequence = Sequence(request, 0, self.arrivals, 0, 1000, list(ids))
        self.arrivals += 1
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> StepPlan:
        """A step in which every sequence that may gets the token 7."""
        plan = self.scheduler.schedule()
        for chunk in plan.chunks:
            self.scheduler.computed(chunk)
            if chunk.samples:
                chunk.sequence.token_ids.append(7)
        self.scheduler.check_integrity()
        return plan


def _shape(plan: StepPlan) -> list[tuple[str, int, int]]:
    return [(c.sequence.request.request_id, c.start, c.count) for c in plan.chunks]


def test_scheduling_needs_no_torch() -> None:
    code = "import sys, llm_node.engine.scheduler; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_prompts_share_a_step_until_the_budget_is_spent() -> None:
    bench = _Bench(32)
    bench.add("a", 10, first=100)
    bench.add("b", 10, first=200)
    bench.add("c", 3, first=300)
    assert _shape(bench.step()) == [("a", 0, 10), ("b", 0, 6)]


def test_single_tokens_come_first_and_bound_prompts() -> None:
    bench = _Bench(32)
    bench.add("a", 10, first=100)
    bench.step()
    bench.add("b", 10, first=200)
    assert _shape(bench.step()) == [("a", 10, 1), ("b", 0, 6)]
    assert _shape(bench.step()) == [("a", 11, 1), ("b", 6, 4)]


def test_the_last_in_order_gives_up_its_blocks() -> None:
    bench = _Bench(5)
    first, second = bench.add("a", 8, first=100), bench.add("b", 8, first=200)
    bench.step()
    assert (len(first.blocks), len(second.blocks), bench.pool.free) == (2, 2, 1)
    assert _shape(bench.step()) == [("a", 8, 1)]  # takes the last block; b has none for its token
    assert second.state is SequenceState.RUNNING
    for _ in range(4):
        bench.step()
    assert second.preempted == 1
    assert second.state is SequenceState.WAITING
    assert len(first.blocks) == 4


def test_a_preempted_sequence_finds_its_own_blocks_again() -> None:
    bench = _Bench(8, max_running=1)
    low = bench.add("low", 9, priority=5, first=100)
    bench.step()
    high = bench.add("high", 4, priority=0, first=200)
    assert _shape(bench.step()) == [("high", 0, 4)]
    assert (low.state, low.computed, low.blocks) == (SequenceState.WAITING, 0, [])
    bench.scheduler.finish(high)
    assert _shape(bench.step()) == [("low", 8, 2)]


def test_a_prompt_found_whole_still_computes_its_last_token() -> None:
    bench = _Bench(8)
    first = bench.add("a", 8, first=100)
    bench.step()
    bench.scheduler.finish(first)
    again = bench.add("b", 8, first=100)
    assert _shape(bench.step()) == [("b", 4, 4)]
    assert again.cached == 4
    assert (bench.scheduler.prefix_hits, bench.scheduler.prefix_queries) == (4, 16)


def test_nobody_overtakes_a_large_prompt_of_equal_priority() -> None:
    bench = _Bench(6)
    bench.add("a", 12, first=100)
    bench.step()
    bench.add("large", 16, first=200)
    bench.add("small", 2, first=300)
    assert _shape(bench.step()) == [("a", 12, 1)]


def test_paused_sequences_keep_blocks_until_somebody_in_front_needs_them() -> None:
    bench = _Bench(4)
    first = bench.add("a", 4, first=100)
    bench.step()
    other = bench.add("b", 8, first=200)
    bench.step()
    bench.step()
    bench.scheduler.pause(other)
    assert other.blocks
    for _ in range(12):
        bench.step()
    assert first.computed > 12
    assert (other.blocks, other.state) == ([], SequenceState.PAUSED)
    bench.scheduler.finish(first)
    bench.scheduler.resume(other)
    bench.step()
    assert other.state is SequenceState.RUNNING


def test_a_prompt_under_way_does_not_hold_up_a_higher_priority() -> None:
    bench = _Bench(64)
    bench.add("low", 60, priority=5, first=100)
    assert _shape(bench.step()) == [("low", 0, 16)]
    bench.add("high", 20, priority=0, first=300)
    bench.add("same", 4, priority=5, first=400)
    assert _shape(bench.step()) == [("high", 0, 16)]
    assert _shape(bench.step()) == [("high", 16, 4), ("low", 16, 12)]
    # One answer is being written now, so prompts have the smaller share.
    assert _shape(bench.step()) == [("high", 20, 1), ("low", 28, 6)]


def test_a_higher_priority_takes_a_place_though_the_step_is_full_of_answers() -> None:
    bench = _Bench(64, step_tokens=4)
    for number in range(4):
        bench.add(f"low-{number}", 1, priority=5, first=100 * (number + 1))
    assert len(bench.step().chunks) == 4
    bench.add("high", 3, priority=0, first=900)
    assert _shape(bench.step())[-1] == ("high", 0, 1)
    assert [s.request.request_id for s in bench.scheduler.waiting] == ["low-3"]
    bench.add("equal", 3, priority=5, first=950)
    assert "equal" not in {name for name, _, _ in _shape(bench.step())}
