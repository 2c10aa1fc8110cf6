"""Plays arrivals through a schedule: queues, batches, time-outs, decode slots, stalls.

The search's TTFT is the mean of one burst at an empty system. Here requests arrive over
time: a group of stages takes a batch when it is full or when its oldest request has
waited for the stage's time-out; decode is a running batch whose tokens take the longer the
fuller it is, and which reads prompts itself where its table says so; a sequence that
retrieves again during decode keeps its slot and stalls until its batch of such sequences
is full or timed out.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.planner.decoding import Decoding, Iteration
from ragschema.planner.mix import Requests
from ragschema.planner.mixed_decoding import Engines
from ragschema.planner.mixing import steps_of
from ragschema.planner.played import Played
from ragschema.planner.problem import Group, Placement, Problem
from ragschema.planner.queueing import GroupServer, SlotServer, Step
from ragschema.planner.schedule import Schedule, StageChoice
from ragschema.planner.stages import F64, StageKind, StageTable

_INSTANT_S = 1e-9


@dataclass(frozen=True)
class Policy:
    """How a deployment batches.

    Attributes:
        timeout_s: by stage name, how long the oldest request of a batch that is not full
            waits; 0 takes what is queued; a stage that is not named waits for ever.
        default_timeout_s: for stages that are not named; None: wait for ever.
        iteration: retrievals during decode; None: none.
    """

    timeout_s: Mapping[str, float] = field(default_factory=dict)
    default_timeout_s: float | None = None
    iteration: Iteration | None = None

    def of(self, stage: str) -> float:
        """Seconds; inf: wait for ever."""
        wait = self.timeout_s.get(stage, self.default_timeout_s)
        if wait is None:
            return np.inf
        if not wait >= 0:
            raise InvalidInput(f"{wait} is no time-out", field=f"timeout_s.{stage}")
        return wait


def simulate(
    problem: Problem,
    schedule: Schedule,
    arrivals_s: F64,
    policy: Policy | None = None,
    output: float = 256,
    seed: int = 0,
    requests: Requests | None = None,
    most: int | None = None,
) -> Played:
    """Plays the arrivals until the last request has ended.

    Args:
        arrivals_s: float64 [n], ascending.
        output: tokens that decode writes per request, on average.
        seed: of the positions at which sequences retrieve again.
        requests: what each of them is; None: all are alike.
        most: requests under way at which whoever comes is refused; None: nobody is.

    Raises:
        InvalidInput: an iterative batch larger than the decode batch, which would wait
            for ever.
    """
    requests = requests or _alike(len(arrivals_s), output, policy)
    return _Simulation(
        problem, schedule, arrivals_s, policy or Policy(), output, seed, requests, most
    ).run()


def _alike(count: int, output: float, policy: Policy | None) -> Requests:
    iteration = None if policy is None else policy.iteration
    again = 0 if iteration is None else iteration.retrievals or 0
    of = np.zeros(count, dtype=np.int64)
    return Requests(np.full(count, float(output)), np.full(count, again), {}, of, ("all",))


class _Simulation:
    """One run: a heap of events, servers in a row, decode at the end."""

    def __init__(
        self,
        problem: Problem,
        schedule: Schedule,
        arrivals_s: F64,
        policy: Policy,
        output: float,
        seed: int,
        requests: Requests,
        most: int | None,
    ) -> None:
        self._arrivals = arrivals_s
        self._most = most
        self._let_in = np.ones(len(arrivals_s), dtype=bool)
        self._entered = 0
        self._requests = requests
        self._events: list[tuple[float, int, int, int]] = []
        self._ticket = 0
        self._mixed = mixed_decoding(problem, schedule, output, requests)
        groups = _before_engine(schedule.placement, self._mixed is not None)
        embed_s = 0.0 if self._mixed is None else self._mixed.embed_s
        self._servers = _servers(problem, schedule, groups, policy, requests, embed_s)
        # Decode stands still while the last group works, if it is on the same chips.
        self._shared = problem.shares(schedule.placement) and len(groups) == len(schedule.placement)
        self._halted = False
        self._first_token = np.full(len(arrivals_s), np.nan)
        self._decode = self._mixed or _decoding(problem, schedule, policy, output, requests, seed)

    def run(self) -> Played:
        """Events are (time, ticket, where, what): where counts servers, then decode."""
        decode_at = len(self._servers)
        arrivals = self._arrivals.tolist()
        upcoming = 0
        while upcoming < len(arrivals) or self._events:
            if self._events and (
                upcoming == len(arrivals) or self._events[0][0] <= arrivals[upcoming]
            ):
                now, _, where, what = heapq.heappop(self._events)
                if where == decode_at:
                    self._push(self._decode.on_event(now, what), where)
                else:
                    self._advance(now, where, self._servers[where].on_event(now, what))
            else:
                self._arrive(arrivals[upcoming], upcoming)
                upcoming += 1
        return self._played()

    def _arrive(self, now: float, request: int) -> None:
        if self._most is not None and self._entered - self._decode.ended >= self._most:
            self._let_in[request] = False
            return
        self._entered += 1
        self._advance(now, -1, [request])

    def _advance(self, now: float, where: int, done: Sequence[int]) -> None:
        """Requests that leave server ``where`` enter the next; every server then looks."""
        after = where + 1
        if done and after < len(self._servers):
            past = self._servers[after].enter(now, done)
            self._look(now, after)
            if past:
                self._advance(now, after, past)
        elif done:
            for request in done:
                self._first_token[request] = now
            self._push(self._decode.enter(now, done), after)
        if where >= 0:
            self._look(now, where)

    def _look(self, now: float, where: int) -> None:
        server = self._servers[where]
        self._push(server.look(now), where)
        if not self._shared or where != len(self._servers) - 1 or server.working == self._halted:
            return
        self._halted = server.working
        if self._halted:
            self._decode.halt(now)
        else:
            self._push(self._decode.go_on(now), len(self._servers))

    def _push(self, events: Sequence[tuple[float, int]], where: int) -> None:
        for time_s, what in events:
            self._ticket += 1
            heapq.heappush(self._events, (time_s, self._ticket, where, what))

    def _played(self) -> Played:
        mixed = self._mixed
        if mixed is not None:
            self._first_token = np.array(mixed.first_token_s)
        let_in = self._let_in
        first_token, end = self._first_token[let_in], np.array(self._decode.ended_s)[let_in]
        assert not np.isnan(first_token).any(), "every request reached its first token"
        span = float(end.max() - self._arrivals.min())
        waits: dict[str, F64] = {}
        busy: dict[str, float] = {}
        service: dict[str, float] = {}
        for server in self._servers:
            waits |= {name: np.array(w)[let_in] for name, w in server.wait_s.items()}
            busy[server.name] = server.busy_s / span
            service |= {name: s / len(end) for name, s in server.service_s.items()}
        asked = self._requests
        steps = None
        if mixed is None:
            waits["decode"] = np.array(self._decode.wait_s)[let_in]
        else:
            waits["prefill"] = np.array(mixed.wait_s)[let_in]
            busy["prefill+decode"] = mixed.busy_s / span
            service["prefill"] = mixed.read_s / len(end)
            if "retrieval" in service:
                service["retrieval"] += sum(mixed.embedded_s) / len(end)
            steps = np.maximum(1.0, np.round(asked.output[let_in]) - 1.0)
        several = len(asked.names) > 1
        classes = {name: asked.of[let_in] == at for at, name in enumerate(asked.names) if several}
        met = {name: mine for name, mine in classes.items() if mine.any()}
        return Played(
            self._arrivals[let_in], first_token, end, waits, busy, asked.output[let_in], met,
            service, steps, int((~let_in).sum()),
        )  # fmt: skip


def _before_engine(placement: Placement, mixed: bool) -> list[Group]:
    """Groups of stages that are played batch by batch: without an engine's own, its prefill."""
    if not mixed:
        return list(placement)
    others = placement[-1][:-2]
    return [*placement[:-1], *([others] if others else [])]


def _servers(
    problem: Problem,
    schedule: Schedule,
    groups: Sequence[Group],
    policy: Policy,
    requests: Requests,
    embed_s: float,
) -> list[GroupServer | SlotServer]:
    """Every stage before decode.

    Args:
        embed_s: of a question, which decode's engine embeds: no part of retrieval then.
    """
    found: list[GroupServer | SlotServer] = []
    stages = problem.stages_in(schedule.placement)
    work = {name: each.tolist() for name, each in requests.work.items()}
    for group in groups:
        mine = [i for i in group if stages[i].kind is not StageKind.DECODE]
        steps = []
        for table, choice in ((stages[i], schedule.choices[i]) for i in mine):
            batch = table.going_through(choice.batch)
            latency_s = latencies(table, choice, batch)
            if table.name == "retrieval":
                latency_s = [max(_INSTANT_S, s - embed_s) for s in latency_s]
            wait_s = policy.of(table.name)
            steps.append(Step(table.name, batch, latency_s, wait_s, work.get(table.name)))
        if len(group) == 1 and stages[group[0]].delay:
            found.append(SlotServer(steps[0], len(requests.output)))
        else:
            name = "+".join(step.name for step in steps)
            found.append(GroupServer(name, steps, len(requests.output)))
    return found


def _decoding(
    problem: Problem,
    schedule: Schedule,
    policy: Policy,
    output: float,
    requests: Requests,
    seed: int,
) -> Decoding:
    table, choice = problem.stages_in(schedule.placement)[-1], schedule.choices[-1]
    per_token = [s / output for s in latencies(table, choice, choice.batch)]
    outputs, again = requests.output.tolist(), requests.again.tolist()
    return Decoding(per_token, outputs, again, policy.iteration, np.random.default_rng(seed))


def mixed_decoding(
    problem: Problem, schedule: Schedule, output: float, requests: Requests
) -> Engines | None:
    """Prefill and decode of engines that do both at once; None: they take turns."""
    table, choice = problem.stages_in(schedule.placement)[-1], schedule.choices[-1]
    mixing = table.mixing
    if mixing is None or not problem.shares(schedule.placement):
        return None
    row = table.row(choice.count, choice.kind)
    steps = steps_of(mixing, table.batches, row, choice.batch)
    work = requests.work.get("prefill")
    each = np.ones(len(requests.output)) if work is None else work
    prompts, outputs = (mixing.prompt_tokens * each).tolist(), requests.output.tolist()
    return Engines(int(mixing.engines[row]), steps, prompts, outputs)


def latencies(table: StageTable, choice: StageChoice, batch: int) -> list[float]:
    """Seconds for 1 .. batch requests: those of the next larger size in the table.

    What was measured is not padded to such a size: straight lines lie between them.
    """
    at = table.row(choice.count, choice.kind)
    row: F64 = (table.latency_s if table.full_s is None else table.full_s)[at]
    if table.spread is not None and not np.isnan(table.spread[at]).all():
        known = np.isfinite(row)
        counts = np.arange(1, batch + 1)
        drawn: list[float] = np.interp(counts, np.array(table.batches)[known], row[known]).tolist()
        return drawn
    found: list[float] = []
    for size, latency_s in zip(table.batches, row.tolist(), strict=True):
        if len(found) >= batch:
            break
        # A size that is not possible is padded to the next one that is.
        while len(found) < size and latency_s < np.inf:
            found.append(latency_s)
    assert len(found) >= batch, "the schedule's own batch is possible"
    return found[:batch]
