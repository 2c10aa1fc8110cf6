"""What ``ragrig status`` says of live re-planning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def replan_lines(replan: Mapping[str, Any] | None) -> Iterator[str]:
    """A line on the load, and one on the last conclusion; none where nobody watches."""
    if replan is None:
        return
    yield f"re-planning ({replan['mode']}), {replan['state']}: {_load(replan)}"
    last = replan["last"]
    if last is not None:
        yield f"  {last['at']}: {_conclusion(last)}, since {last['reason']}"
    if replan["error"]:
        yield f"  the last attempt failed: {replan['error']}"


def _load(replan: Mapping[str, Any]) -> str:
    if replan["observed"] is None:
        return "too few requests to tell"
    out = replan["out_of_range"]
    if not out:
        return "the load is within the plan's range"
    return "; ".join(
        f"{each['what']} {each['value']:.3g}, planned for {each['low']:.3g} to {each['high']:.3g}"
        for each in out
    )


def _conclusion(last: Mapping[str, Any]) -> str:
    done = "deployed" if last["applied"] else "proposed"
    what = "kept the plan" if last["kind"] == "none" else f"{done} other {last['kind']}"
    changes = f" ({'; '.join(last['changes'])})" if last["changes"] else ""
    note = f"; {last['note']}" if last["note"] else ""
    return f"{what}{changes}, {last['gain']:.2f} times better{note}"
