"""Tables around a plan: other workloads and pools, other loads, a device lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ragschema.planner.infeasible import Infeasible
from ragschema.planner.robust import AtLoad, Loss
from ragschema.planner.what_if import Outcome

#: Figures of a row, and their columns' heads.
_HEADS: Final = {
    "ttft_s": "TTFT s",
    "ttft_s_p99": "p99 s",
    "tpot_s": "TPOT s",
    "qps": "QPS",
    "qps_per_chip": "/chip",
    "chips": "chips",
    "cost_per_1000": "/1000",
}


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """One flat row; figures that are not known, or of no plan, are None."""
    row: dict[str, Any] = {"key": outcome.key, "value": outcome.value}
    plan = outcome.plan
    if isinstance(plan, Infeasible):
        return row | dict.fromkeys(_HEADS) | {"infeasible": f"{plan.binding}: {plan.change}"}
    values = (
        plan.schedule.ttft_s, plan.simulated["ttft_s_p99"], plan.tpot_s, plan.schedule.qps,
        plan.schedule.qps_per_chip, plan.schedule.chips, plan.cost_per_1000,
    )  # fmt: skip
    return row | dict(zip(_HEADS, values, strict=True)) | {"infeasible": None}


def what_if_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row per plan; the first is the one with nothing changed."""
    table = Table(title="what if", title_justify="left")
    columns = list(_HEADS)
    if all(row["cost_per_1000"] is None for row in rows):
        columns.remove("cost_per_1000")
    table.add_column("changed", overflow="fold", min_width=24)
    for name in columns:
        table.add_column(_HEADS[name], justify="right")
    for row in rows:
        what = "nothing" if row["key"] is None else f"{row['key']} = {row['value']}"
        if row["infeasible"] is not None:
            what += f"\n  nothing feasible: {row['infeasible']}"
        cells = ["" if row[name] is None else f"{row[name]:,.4g}" for name in columns]
        table.add_row(what, *cells)
    return table


def robustness_table(loads: Sequence[AtLoad], losses: Sequence[Loss]) -> Group:
    """Other loads, then what is left with a device lost."""
    table = Table(title="the plan at other loads", title_justify="left")
    columns = ("load", "arrivals per s", "TTFT p50 ms", "TTFT p99 ms", "TPOT p99 ms", "goodput")
    for column in columns:
        table.add_column(column, justify="right")
    for at in loads:
        table.add_row(
            f"{at.load:.0%}",
            f"{at.arrivals_per_s:,.4g}",
            f"{at.ttft_s_p50 * 1e3:,.4g}",
            f"{at.ttft_s_p99 * 1e3:,.4g}",
            f"{at.tpot_s_p99 * 1e3:,.4g}",
            f"{at.goodput_per_s:,.4g}",
        )
    lines = [Text(f"lost: {x.lost}: {x.qps:,.4g} QPS left, {x.share:.0%}") for x in losses]
    return Group(table, *lines)
