"""Better plans for what is observed: the deployed one played beside others at the same load.

Everything is judged by one figure, ``cost_s``: mean seconds from arrival to the last token at
the observed rate, times how far the worst objective is missed. Other batches on the processes
that run, and other processes, are proposed apart, since the first cost nothing to try.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from coordinator.replan.proposal import Ask, Option, Proposal
from coordinator.replan.workload import seen_as
from ragschema.errors import IncompatibleRequest, InvalidInput
from ragschema.here import this_machine
from ragschema.local import local_pool
from ragschema.planner.arrivals import arrivals_for
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.axes import Objective, default_axes
from ragschema.planner.mix import Mix, mix_of
from ragschema.planner.plan import Plan
from ragschema.planner.plan_file import StoredPlan, read_plan, write_plan
from ragschema.planner.play import Candidate, answer_s, play
from ragschema.planner.problem import Decoding, Problem
from ragschema.planner.schedule import Schedule
from ragschema.planner.search import Gap, search_within
from ragschema.planner.simulate import Policy, simulate
from ragschema.planner.slo import worst
from ragschema.planner.stages import StageTable
from ragschema.planner.verify import under_load
from ragschema.pool import Pool
from ragschema.profile import read_profile
from ragschema.workload import ObjectivesConfig, RagSchema, load_schema

#: Requests that a candidate is played with, and schedules of the frontier that are.
_REQUESTS: Final = 600
_MOST_SCHEDULES: Final = 8
#: Stages that take as long as is predicted within this factor are left as they are predicted;
#: others are corrected by what was seen, up to a factor.
_TRUSTED, _MOST_CORRECTED = 1.5, 4.0
_SPACE: Final = SearchSpace(decoding=Decoding.EITHER)
#: Of batchers, where a plan waits for ever.
_LONGEST_WAIT_S: Final = 1.0
#: Batchers that the coordinator has; others are a node's own.
_LIVE: Final = ("retrieval",)


def propose(ask: Ask) -> Proposal:
    """Plans anew for what is observed, and writes the plans that are better.

    Raises:
        NotFound, InvalidInput: of the files, or the plan does not go with the schema and pool.
        IncompatibleRequest: the deployed plan is not possible under the observed load.
    """
    stored = read_plan(Path(ask.plan))
    schema = seen_as(load_schema(Path(ask.schema)), ask.observed)
    pool = _pool(ask.profile, ask.allow_extrapolation)
    return _Search(ask, stored, schema, pool).run()


def check_deployed(
    plan: StoredPlan, schema: RagSchema, profile: str | None, allow_extrapolation: bool
) -> None:
    """Whether a plan can be weighed against others later.

    Raises:
        NotFound, InvalidInput: of the profile, or the plan does not go with the schema.
        IncompatibleRequest: the profile is another machine's, or rules the plan out.
    """
    pool = _pool(profile, allow_extrapolation)
    problem = problem_of(schema, pool, _space(plan))
    if play(problem, candidate_for(problem, plan, pool)) is None:
        raise IncompatibleRequest(
            "the plan is not possible with what the profile says",
            field="profile",
            hint="give the profile, and --allow-extrapolation, that the plan was made with",
        )


def _space(plan: StoredPlan) -> SearchSpace:
    """What is searched; into how many processes cores are divided stays as it is."""
    return replace(_SPACE, engines=max(group.processes for group in plan.groups))


def _pool(profile: str | None, allow_extrapolation: bool) -> Pool:
    known = None if profile is None else read_profile(Path(profile))
    return local_pool(this_machine(), known, allow_extrapolation)


@dataclass(frozen=True)
class _Tried:
    """A schedule at the observed load."""

    schedule: Schedule
    policy: Policy
    report: Mapping[str, float]
    cost_s: float


class _Search:
    """One proposal."""

    def __init__(self, ask: Ask, stored: StoredPlan, schema: RagSchema, pool: Pool) -> None:
        self._ask, self._stored, self._pool = ask, stored, pool
        self._wanted = schema.objectives
        # What the load allows is judged here: the search itself is to leave nothing out.
        self._schema = replace(schema, objectives=ObjectivesConfig())
        self._mix: Mix = mix_of(self._schema)
        self._problem = problem_of(self._schema, pool, _space(stored))

    def run(self) -> Proposal:
        deployed = candidate_for(self._problem, self._stored, self._pool)
        now = self._deployed(deployed)
        corrected = self._corrections(now)
        if corrected:
            self._problem = _scaled(self._problem, corrected)
            now = self._deployed(deployed)
        batches = min(self._other_batches(deployed, now), key=lambda t: t.cost_s)
        placement = min(self._other_processes(corrected), key=lambda t: t.cost_s, default=None)
        return Proposal(
            now.cost_s,
            _figures(now),
            self._option(batches, self._ask.out[0]) if batches.cost_s < now.cost_s else None,
            self._option(placement, self._ask.out[1])
            if placement is not None and placement.cost_s < batches.cost_s
            else None,
            corrected,
        )

    def _deployed(self, candidate: Candidate) -> _Tried:
        """The deployed plan under its own time-outs."""
        schedule = play(self._problem, candidate)
        if schedule is None:
            raise IncompatibleRequest(
                "the deployed plan is not possible under the observed load",
                field="plan",
                hint="where lengths are beyond what was measured: ragrig profile, or"
                " --allow-extrapolation",
            )
        best = self._tried(schedule)
        waits = {
            stage.name: stage.timeout_s
            for group in self._stored.groups
            for stage in group.stages
            if stage.timeout_s is not None
        }
        policy = Policy(waits, _LONGEST_WAIT_S, best.policy.iteration)
        return self._judged(schedule, policy, self._played(schedule, policy))

    def _tried(self, schedule: Schedule) -> _Tried:
        """A schedule under the time-outs that suit it best."""
        load = self._ask.observed.arrivals_per_s / schedule.qps
        schema = replace(self._schema, objectives=replace(self._wanted, load=load))
        policy, report = under_load(self._problem, schema, self._mix, schedule, _REQUESTS)
        return self._judged(schedule, policy, report)

    def _played(self, schedule: Schedule, policy: Policy) -> Mapping[str, float]:
        rate = self._ask.observed.arrivals_per_s
        return simulate(
            self._problem,
            schedule,
            arrivals_for(self._schema.arrivals, rate, _REQUESTS, seed=0),
            policy,
            self._mix.output,
            requests=self._mix.sample(_REQUESTS, seed=0),
        ).report()

    def _judged(self, schedule: Schedule, policy: Policy, report: Mapping[str, float]) -> _Tried:
        missed = max(1.0, worst(self._wanted, report))
        return _Tried(schedule, policy, report, report["e2e_s_mean"] * missed)

    def _corrections(self, now: _Tried) -> dict[str, float]:
        """By stage, seconds seen over seconds predicted, where they are far apart.

        Only where the load is one that the plan sustains: beyond it, waiting says nothing
        about what a stage takes.
        """
        if self._ask.observed.arrivals_per_s > now.schedule.qps:
            return {}
        decode_s = now.report["e2e_s_mean"] - now.report["ttft_s_mean"]
        seen_s = self._ask.observed.stages_s.get("decode", 0.0)
        if not (seen_s > 0 and decode_s > 0) or 1 / _TRUSTED <= seen_s / decode_s <= _TRUSTED:
            return {}
        return {"decode": min(_MOST_CORRECTED, max(1 / _MOST_CORRECTED, seen_s / decode_s))}

    def _other_batches(self, deployed: Candidate, now: _Tried) -> Iterator[_Tried]:
        """One batch size after the other is changed, each from the best of those before."""
        yield now
        best = deployed
        for changed in (self._searched_batches, self._again_batches, self._decode_batches):
            tried = [(c, self._possible(c)) for c in changed(best)]
            found = [(c, t) for c, t in tried if t is not None]
            yield from (t for _, t in found)
            if found:
                best = min(found, key=lambda pair: pair[1].cost_s)[0]

    def _possible(self, candidate: Candidate) -> _Tried | None:
        schedule = play(self._problem, candidate)
        return None if schedule is None else self._tried(schedule)

    def _searched_batches(self, base: Candidate) -> Iterator[Candidate]:
        for at, stage in enumerate(self._problem.before_decode):
            if stage.name in _LIVE:
                for batch in stage.batches:
                    batches = (*base.batches[:at], batch, *base.batches[at + 1 :])
                    yield replace(base, batches=batches)

    def _again_batches(self, base: Candidate) -> Iterator[Candidate]:
        for batch in self._problem.iterative_batches:
            if batch is not None and batch <= base.decode_batch:
                yield replace(base, iterative_batch=batch)

    def _decode_batches(self, base: Candidate) -> Iterator[Candidate]:
        least = base.iterative_batch or 1
        for batch in self._problem.decode.batches:
            if least <= batch <= self._ask.most_running:
                yield replace(base, decode_batch=batch)

    def _other_processes(self, corrected: Mapping[str, float]) -> Iterator[_Tried]:
        """Schedules on as many cores as now, and on all there are, spread over each frontier."""
        for chips in sorted({self._stored.accelerators, self._pool.max_chips}):
            pool = replace(self._pool, min_chips=chips, max_chips=chips)
            problem = _scaled(problem_of(self._schema, pool, _space(self._stored)), corrected)
            frontier, _ = search_within(problem, self._ask.limit_s)
            for schedule in _spread(frontier.points):
                yield self._tried(schedule)

    def _option(self, tried: _Tried, path: str) -> Option:
        write_plan(self._plan(tried), Path(path))
        return Option(path, tried.cost_s, _figures(tried))

    def _plan(self, tried: _Tried) -> Plan:
        objective, schedule = Objective.MAX_QPS_PER_CHIP, tried.schedule
        return Plan(
            self._schema, self._pool, objective, self._problem, schedule,
            answer_s(self._problem, schedule) / self._mix.output, default_axes(objective),
            (), (schedule,), (schedule,), Gap(), tried.policy, tried.report, self._mix,
        )  # fmt: skip


def candidate_for(problem: Problem, plan: StoredPlan, pool: Pool) -> Candidate:
    """What a stored plan fixes, in the tables of another problem.

    Raises:
        InvalidInput: the problem has other stages or devices than the plan.
    """
    names = [stage.name for stage in problem.stages]
    stages = {stage.name: stage for group in plan.groups for stage in group.stages}
    if sorted(stages) != sorted(names):
        raise InvalidInput(
            f"the plan has {', '.join(sorted(stages))}, the schema {', '.join(sorted(names))}",
            field="schema",
            hint="name the schema that the plan was made from",
        )
    kinds = [kind.name for kind in problem.kinds]
    for name, stage in stages.items():
        if stage.batch not in problem.stages[names.index(name)].batches:
            raise InvalidInput(f"{stage.batch} is no batch that is planned with", field=name)
    groups = [
        (tuple(names.index(s.name) for s in group.stages), group)
        for group in plan.groups
        if [s.name for s in group.stages] != [names[-1]]
    ]
    last = next(g for g in plan.groups if names[-1] in [s.name for s in g.stages])
    nodes = [node.device.name for node in pool.nodes]
    searched = next((s for s in stages.values() if s.hosts is not None), None)
    try:
        return Candidate(
            placement=tuple(at for at, _ in groups),
            chips=tuple(group.accelerators for _, group in groups),
            batches=tuple(stages[name].batch for name in names[:-1]),
            decode_chips=last.accelerators,
            decode_batch=stages[names[-1]].batch,
            kinds=tuple(0 if g.device is None else kinds.index(g.device) for _, g in groups),
            decode_kind=kinds.index(str(last.device)),
            servers=None if searched is None else searched.hosts,
            server_kind=0 if searched is None else nodes.index(str(searched.device)),
            iterative_batch=plan.iterative_batch,
        )
    except ValueError as error:
        raise InvalidInput(f"the plan is for other hardware: {error}", field="plan") from error


def _scaled(problem: Problem, factors: Mapping[str, float]) -> Problem:
    """The problem with stages that take longer, or less long, than their tables say."""
    stages = tuple(_slower(stage, factors.get(stage.name, 1.0)) for stage in problem.stages)
    if problem.together is None:
        return replace(problem, stages=stages)
    before, decode = (_slower(stage, factors.get(stage.name, 1.0)) for stage in problem.together)
    return replace(problem, stages=stages, together=(before, decode))


def _slower(stage: StageTable, factor: float) -> StageTable:
    if factor == 1.0:
        return stage
    steps = stage.mixing
    if steps is not None:
        steps = replace(steps, alone_s=steps.alone_s * factor, mixed_s=steps.mixed_s * factor)
    whole = None if stage.full_s is None else stage.full_s * factor
    return replace(stage, latency_s=stage.latency_s * factor, full_s=whole, mixing=steps)


def _spread(schedules: tuple[Schedule, ...]) -> Iterable[Schedule]:
    """Some of them, evenly, with both ends."""
    count = len(schedules)
    if count <= _MOST_SCHEDULES:
        return schedules
    places = {round(i * (count - 1) / (_MOST_SCHEDULES - 1)) for i in range(_MOST_SCHEDULES)}
    return [schedules[place] for place in sorted(places)]


def _figures(tried: _Tried) -> dict[str, float]:
    names = ("ttft_s_p50", "ttft_s_p99", "tpot_s_p50", "e2e_s_mean", "e2e_s_p99", "goodput_per_s")
    return {"qps": tried.schedule.qps, **{name: tried.report[name] for name in names}}
