"""Plans as tables and sketches in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ragschema.planner.assemble import Rate
from ragschema.planner.explain import GroupLoad, Marginal
from ragschema.planner.plan import DEFINITIONS, Plan
from ragschema.planner.plan_file import StoredPlan, device_of
from ragschema.planner.reproduce.figure import Figure
from ragschema.planner.schedule import Schedule, StageChoice

_WIDTH, _HEIGHT = 60, 12
_SHARES = "count x batch, + shares chips"
#: Further columns of a frontier: how to read each from a schedule.
Columns = Mapping[str, Callable[[Schedule], float]]
#: Rows of a frontier that a terminal shows; --format csv or json has all.
_ROWS = 12


def plan_table(plan: Plan, groups: Sequence[GroupLoad]) -> Group:
    """The chosen plan group by group, its figures, and what they mean."""
    table = Table(title=f"{plan.schema.name}: {plan.objective}", title_justify="left")
    for column in ("stages", "on", "batch", "waits ms", "rate per s", "used"):
        table.add_column(column, justify="left" if column in ("stages", "on") else "right")
    choices = {c.stage: c for c in plan.schedule.choices}
    device, waits_s = device_of(plan), plan.policy.timeout_s
    for load in groups:
        # Stages of a group share their chips: each device is named once.
        on = dict.fromkeys(f"{choices[s].count} {device(choices[s])}" for s in load.stages)
        table.add_row(
            " + ".join(load.stages),
            ", ".join(on),
            ", ".join(str(choices[s].batch) for s in load.stages),
            ", ".join(f"{waits_s[s] * 1e3:.3g}" for s in load.stages if s in waits_s),
            f"{load.rate_per_s:,.4g}",
            f"{load.utilisation:.0%}",
        )
    figures = {
        "ttft_s": plan.schedule.ttft_s,
        "tpot_s": plan.tpot_s,
        "qps": plan.schedule.qps,
        "qps_per_chip": plan.schedule.qps_per_chip,
        "ttft_s_p99": plan.simulated["ttft_s_p99"],
        "e2e_s_p99": plan.simulated["e2e_s_p99"],
    }
    cost_per_1000, energy_j = plan.cost_per_1000, plan.per_request(Rate.PER_WATT)
    figures |= {"cost_per_1000": cost_per_1000} if cost_per_1000 else {}
    figures |= {"energy_j": energy_j} if energy_j else {}
    lines = [
        Text(f"{name:<14}{value:<10.4g}{DEFINITIONS[name]} ({_source(plan, name)})")
        for name, value in figures.items()
    ]
    lines.append(Text(f"{'load':<14}{plan.simulated['load']:<10.0%}of qps, for the p99"))
    if plan.schedule.iterative_batch is not None:
        again = plan.schedule.iterative_batch
        lines.append(Text(f"{'iterative':<14}{again:<10}sequences retrieve together in decode"))
    if plan.gap.unfinished:
        lines.append(
            Text(
                f"time ran out with {plan.gap.unfinished:.0%} of the search to go: no schedule is"
                f" better by more than {plan.gap.rate:.2%} in rate, or {plan.gap.ttft:.2%} in TTFT"
            )
        )
    return Group(table, *lines, Text(""))


def _source(plan: Plan, name: str) -> str:
    """Whether a figure is measured or modelled, with its interval where there is one."""
    source = " and ".join(sorted(set(plan.provenance.values())))
    if name not in plan.intervals:
        return source
    between = plan.intervals[name]
    return f"{source}, {between.low:.4g} to {between.high:.4g}"


def frontier_table(
    points: Sequence[Schedule],
    chosen: Schedule | None,
    columns: Columns | None = None,
    device: Callable[[StageChoice], str] | None = None,
) -> Table:
    """The frontier, one schedule a row; the chosen one is marked. Long ones are thinned.

    Args:
        columns: further ones, by name, of a plan's axes.
        device: names the device of a choice; None: there is one kind.
    """
    shown = _thinned(points, chosen)
    left_out = len(points) - len(shown)
    title = f"frontier, {left_out} of {len(points)} rows left out" if left_out else "frontier"
    table = Table(title=title, title_justify="left")
    more = columns or {}
    for column in ("", "TTFT ms", "QPS/chip", "QPS", "chips", *more, _SHARES):
        table.add_column(column, justify="left" if column == _SHARES else "right")
    for point in shown:
        groups = " | ".join(
            " + ".join(_short(point.choices[i], device) for i in group) for group in point.groups
        )
        table.add_row(
            ">" if point == chosen else "",
            f"{point.ttft_s * 1e3:.4g}",
            f"{point.qps_per_chip:.4g}",
            f"{point.qps:.4g}",
            str(point.chips),
            *(f"{value(point):.4g}" for value in more.values()),
            groups,
        )
    return table


def _thinned(points: Sequence[Schedule], chosen: Schedule | None) -> list[Schedule]:
    """Evenly spread rows, the ends and the chosen one among them."""
    if len(points) <= _ROWS:
        return list(points)
    kept = {round(i * (len(points) - 1) / (_ROWS - 1)) for i in range(_ROWS)}
    return [p for i, p in enumerate(points) if i in kept or p == chosen]


def _short(choice: StageChoice, device: Callable[[StageChoice], str] | None) -> str:
    short = f"{choice.stage} {choice.count}x{choice.batch}"
    return short if device is None else f"{short} {device(choice)}"


def frontier_sketch(points: Sequence[Schedule], chosen: Schedule | None) -> Text:
    """QPS per chip over TTFT, as characters."""
    if len(points) < 2:
        return Text("")
    low, high = min(p.ttft_s for p in points), max(p.ttft_s for p in points)
    top = max(p.qps_per_chip for p in points)
    rows = [[" "] * (_WIDTH + 1) for _ in range(_HEIGHT + 1)]
    for point in points:
        x = round((point.ttft_s - low) / ((high - low) or 1.0) * _WIDTH)
        y = _HEIGHT - round(point.qps_per_chip / top * _HEIGHT)
        rows[y][x] = "O" if point == chosen else "*"
    lines = [f"{top:>9.4g} +{''.join(rows[0])}"]
    lines += [f"{'':>9} |{''.join(row)}" for row in rows[1:-1]]
    lines += [f"{0:>9} +{''.join(rows[-1])}"]
    lines += [f"{'':>11}{low * 1e3:<.4g} ms{'TTFT':^{_WIDTH - 16}}{high * 1e3:.4g} ms"]
    return Text("QPS/chip\n" + "\n".join(lines))


def explanation(
    plan: Plan,
    groups: Sequence[GroupLoad],
    second: tuple[Schedule, str] | None,
    gains: Sequence[Marginal],
) -> Text:
    """What binds, who has slack, what more would bring, why the runner-up lost."""
    tight = max(groups, key=lambda load: load.utilisation)
    lines = [f"binding: {' + '.join(tight.stages)} at {tight.rate_per_s:,.4g} requests per s"]
    lines += [
        f"slack:   {' + '.join(load.stages)} could do {1 / load.utilisation - 1:.0%} more"
        for load in groups
        if load is not tight
    ]
    lines += [f"gain:    {m.gain_pct:+.2f} % from {m.resource}" for m in gains]
    if second is not None:
        other, why = second
        lines.append(
            f"runner-up: TTFT {other.ttft_s * 1e3:.4g} ms, {other.qps_per_chip:.4g} QPS/chip;"
            f" lost because its {why}"
        )
    return Text("\n".join(lines))


def comparison_table(first: StoredPlan, second: StoredPlan) -> Table:
    """Two plans side by side."""
    table = Table(title="plans", title_justify="left")
    for column in ("", f"A: {first.schema}", f"B: {second.schema}", "B over A"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("accelerators", *_pair(first.accelerators, second.accelerators))
    for name, value in first.predicted.items():
        table.add_row(name, *_pair(value, second.predicted[name]))
    for stage in dict.fromkeys((*first.stages, *second.stages)):
        cells = [
            "absent" if found is None else f"{found[0]} x batch {found[1]}, group {found[2]}"
            for found in (first.stages.get(stage), second.stages.get(stage))
        ]
        table.add_row(stage, *cells, "")
    return table


def _pair(a: float, b: float) -> tuple[str, str, str]:
    return f"{a:.4g}", f"{b:.4g}", f"{(b / a - 1):+.1%}"


def figures_table(title: str, figures: Sequence[Figure]) -> Table:
    """A paper's figures beside ours."""
    table = Table(title=title, title_justify="left")
    for column in ("figure", "paper", "ours", "difference %", "beyond rounding %"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for f in figures:
        table.add_row(
            f.name,
            f"{f.paper:g}",
            f"{f.ours:.4g}",
            f"{f.raw_error_pct:+.1f}",
            f"{f.error_pct:.1f}",
        )
    return table
