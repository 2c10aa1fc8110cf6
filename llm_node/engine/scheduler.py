"""Who computes what in the next step, and who gives up blocks for it."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from llm_node.engine.blocks import BlockPool
from llm_node.engine.config import EngineConfig
from llm_node.engine.prefix import extend_chain
from llm_node.engine.request import Sequence, SequenceState


@dataclass(frozen=True)
class Chunk:
    """Tokens ``start : start + count`` of a sequence, computed in one step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the next token can be chosen behind it."""
        return self.start + self.count == len(self.sequence.token_ids)


@dataclass
class StepPlan:
    """One step: its chunks, and sequences whose snapshot goes into their blocks."""

    chunks: list[Chunk] = field(default_factory=list)
    imports: list[Sequence] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(chunk.count for chunk in self.chunks)


class Scheduler:
    """Queues of live sequences over one pool of blocks; no device, no clock.

    Sequences are served by (priority, arrival). Those whose next token needs a
    single one computed come first, then prompts under way, then new ones, all
    under ``step_tokens``; see ``EngineConfig`` for what bounds prompts.
    """

    def __init__(self, config: EngineConfig, pool: BlockPool) -> None:
        self._config = config
        self._pool = pool
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.paused: list[Sequence] = []
        self.preempted = 0
        self.prefix_hits = 0
        self.prefix_queries = 0

    def live(self) -> Iterator[Sequence]:
        """Every sequence that has not ended."""
        yield from self.running
        yield from self.paused
        yield from self.waiting

    def add(self, sequence: Sequence) -> None:
        """Queues a new or preempted sequence."""
        sequence.state = SequenceState.WAITING
        insort(self.waiting, sequence, key=lambda s: s.order)

    def pause(self, sequence: Sequence) -> None:
        """Takes a sequence out of the batch; it keeps its blocks for now."""
        self._queue_of(sequence).remove(sequence)
        sequence.state = SequenceState.PAUSED
        self.paused.append(sequence)

    def resume(self, sequence: Sequence) -> None:
        """Back into the batch, or into the queue when its blocks were taken."""
        self.paused.remove(sequence)
        if sequence.blocks:
            sequence.state = SequenceState.RUNNING
            insort(self.running, sequence, key=lambda s: s.order)
        else:
            self.add(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it stands, and frees what it holds."""
        self._queue_of(sequence).remove(sequence)
        self._release(sequence)
        sequence.state = SequenceState.FINISHED
        sequence.leader = sequence.logits = sequence.mix = sequence.snapshot = None

    def _queue_of(self, sequence: Sequence) -> list[Sequence]:
        return {
            SequenceState.WAITING: self.waiting,
            SequenceState.RUNNING: self.running,
            SequenceState.PAUSED: self.paused,
        }[sequence.state]

    def distrust(self, sequence: Sequence) -> None:
        """Lets nobody else find the blocks of a sequence whose KV gave no numbers."""
        self._pool.forget(sequence.blocks)

    def computed(self, chunk: Chunk) -> None:
        """Notes that a chunk's KV is there, and names the blocks it filled."""
        sequence = chunk.sequence
        known = sequence.computed // self._config.block_tokens
        sequence.computed = chunk.start + chunk.count
        full = sequence.computed // self._config.block_tokens
        if self._config.prefix_reuse and full > known:
            extend_chain(
                sequence.hashes,
                sequence.token_ids[: sequence.computed],
                self._config.block_tokens,
            )
            for i in range(full):
                self._pool.name(sequence.blocks[i], sequence.hashes[i])

    def schedule(self) -> StepPlan:
        """The next step; empty when nothing can or need be computed."""
        plan = StepPlan()
        self._plan_running(plan, single=True)
        budget = self._config.step_tokens - plan.tokens
        if plan.chunks:
            budget = min(budget, self._config.prefill_chunk)
        reading = [s.request.priority for s in self.running if s.remaining > 1]
        if reading:  # a prompt under way does not hold up those of higher priority
            budget = self._admit(plan, budget, above=reading[0])
        budget -= self._plan_running(plan, single=False, budget=budget)
        self._admit(plan, budget)
        plan.chunks.sort(key=lambda chunk: chunk.count > 1)
        return plan

    def _plan_running(self, plan: StepPlan, single: bool, budget: int | None = None) -> int:
        """Plans sequences with a single token to compute, or the others; tokens planned."""
        left = self._config.step_tokens if budget is None else budget
        planned = 0
        taken = {id(chunk.sequence) for chunk in plan.chunks}
        for sequence in [s for s in self.running if (s.remaining == 1) is single]:
            if id(sequence) in taken:
                continue
            count = min(sequence.remaining, left - planned)
            # An earlier one may have taken this one's blocks by now.
            if count < 1 or sequence.state is not SequenceState.RUNNING:
                continue
            if self._grow(sequence, sequence.computed + count, plan):
                plan.chunks.append(Chunk(sequence, sequence.computed, count))
                planned += count
        return planned

    def _grow(self, sequence: Sequence, tokens: int, plan: StepPlan) -> bool:
        """Blocks for so many tokens, if need be from those served later."""
        need = self._blocks_for(tokens) - len(sequence.blocks)
        if need <= 0:
            return True
        while self._pool.free < need:
            victim = self._victim(sequence)
            if victim is None:
                return False
            self._preempt(victim, plan)
        sequence.blocks += self._pool.allocate(need) or []
        return True

    def _victim(self, sequence: Sequence, lower_priority: bool = False) -> Sequence | None:
        """Who is served last of those behind a sequence and holds blocks."""
        behind = [
            s
            for s in (*self.running, *self.paused)
            if s.order > sequence.order and s.blocks and not s.holds_kv
        ]
        victim = max(behind, key=lambda s: s.order, default=None)
        if lower_priority and victim is not None:
            return victim if victim.request.priority > sequence.request.priority else None
        return victim

    def _preempt(self, victim: Sequence, plan: StepPlan) -> None:
        """Takes all blocks of a sequence; what they held is computed again."""
        plan.chunks[:] = [chunk for chunk in plan.chunks if chunk.sequence is not victim]
        plan.imports[:] = [sequence for sequence in plan.imports if sequence is not victim]
        self._release(victim)
        victim.preempted += 1
        self.preempted += 1
        if victim.state is SequenceState.RUNNING:
            self.running.remove(victim)
            self.add(victim)

    def _admit(self, plan: StepPlan, budget: int, above: int | None = None) -> int:
        """Takes new sequences in; the budget that is left.

        Args:
            above: None: all of them; or only those of a higher priority than this.
        """
        for sequence in list(self.waiting):
            if above is not None and sequence.request.priority >= above:
                break
            if budget < 1 and not self._outranks(sequence):
                break
            if self._awaits_leader(sequence):
                continue
            planned = plan.tokens
            roomy = self._make_room(sequence, plan)
            budget += planned - plan.tokens
            if not roomy or budget < 1 or not self._place(sequence, plan):
                break
            self.waiting.remove(sequence)
            sequence.state = SequenceState.RUNNING
            insort(self.running, sequence, key=lambda s: s.order)
            count = min(sequence.remaining, budget)
            plan.chunks.append(Chunk(sequence, sequence.computed, count))
            budget -= count
        return budget

    def _outranks(self, sequence: Sequence) -> bool:
        """Whether somebody would give up a place in a full batch, and what it planned."""
        full = len(self.running) >= self._config.max_running
        return full and self.running[-1].request.priority > sequence.request.priority

    def _awaits_leader(self, sequence: Sequence) -> bool:
        """One of n sequences waits until the first has computed what they share."""
        leader = sequence.leader
        if leader is None or leader.state in (SequenceState.FINISHED, SequenceState.PAUSED):
            return False
        return leader.computed < self._common(sequence)

    def _shareable(self, sequence: Sequence) -> int:
        """Tokens in full blocks that leave one to compute for the next token."""
        return self._full(len(sequence.token_ids) - 1)

    def _common(self, sequence: Sequence) -> int:
        """The same, of the prompt alone: what one of n has in common with the others."""
        return min(self._shareable(sequence), self._full(len(sequence.request.prompt_ids)))

    def _full(self, tokens: int) -> int:
        size = self._config.block_tokens
        return tokens // size * size

    def _make_room(self, sequence: Sequence, plan: StepPlan) -> bool:
        """A place in the batch, if need be from a sequence of lower priority."""
        while len(self.running) >= self._config.max_running:
            worst = self.running[-1]
            if worst.request.priority <= sequence.request.priority:
                return False
            self._preempt(worst, plan)
        return True

    def _place(self, sequence: Sequence, plan: StepPlan) -> bool:
        """Blocks for all tokens a sequence has, shared ones as far as there are."""
        led = self._led(sequence)
        shared = led or self._shared(sequence)
        self._pool.hold(shared)
        need = self._blocks_for(len(sequence.token_ids)) - len(shared)
        while self._pool.free < need:
            victim = self._victim(sequence, lower_priority=True)
            if victim is None:
                self._pool.release(shared)
                return False
            self._preempt(victim, plan)
        sequence.blocks = shared + (self._pool.allocate(need) or [])
        sequence.computed = len(shared) * self._config.block_tokens
        sequence.leader = None
        if led:
            sequence.snapshot = None
        if sequence.snapshot is not None:
            plan.imports.append(sequence)
            sequence.computed = min(sequence.snapshot.computed, len(sequence.token_ids) - 1)
        elif not sequence.preempted:
            sequence.cached = sequence.computed
            self.prefix_hits += sequence.computed
            self.prefix_queries += len(sequence.token_ids)
        return True

    def _led(self, sequence: Sequence) -> list[int]:
        """Blocks of the prompt that the first of n sequences has computed or imported."""
        common, leader = self._common(sequence), sequence.leader
        if leader is None or leader.computed < common:
            return []
        return leader.blocks[: common // self._config.block_tokens]

    def _shared(self, sequence: Sequence) -> list[int]:
        """Blocks that hold the head of the sequence already."""
        if sequence.snapshot is not None:
            return []
        blocks = self._shareable(sequence) // self._config.block_tokens
        if not self._config.prefix_reuse:
            return []
        extend_chain(sequence.hashes, sequence.token_ids, self._config.block_tokens)
        return self._pool.find(sequence.hashes[:blocks])

    def _release(self, sequence: Sequence) -> None:
        self._pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self._config.block_tokens)

    def check_integrity(self) -> None:
        """Raises InternalError when blocks and sequences do not add up."""
        self._pool.check_integrity(s.blocks for s in self.live())
