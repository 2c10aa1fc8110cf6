"""Changed keys: what changes, and how a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragschema.errors import InvalidInput
from ragschema.planner.assemble import Rate
from ragschema.planner.axes import Objective
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.what_if import Outcome, parse_vary, what_if

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SCHEMA = (EXAMPLES / "schemas" / "chatbot.yaml").read_text(encoding="utf-8")
POOL = (EXAMPLES / "pools" / "gpus.yaml").read_text(encoding="utf-8")


def outcomes(*varied: str) -> list[Outcome]:
    changes = [parse_vary(text) for text in varied]
    return what_if(SCHEMA, POOL, changes, lambda s, p: make_plan(s, p, Objective.MIN_COST))


def cost(outcome: Outcome) -> float:
    assert isinstance(outcome.plan, Plan), outcome.plan
    found = outcome.plan.per_request(Rate.PER_COST)
    assert found is not None
    return found


def test_dearer_cached_and_longer() -> None:
    base, dear, cached, longer, same = outcomes(
        "pool.accelerators.l4.price_per_h=5",
        "cache.document_kv_hit=0.8",
        "lengths.prompt=3000",
        "pool.accelerators.1.count=32",
    )
    assert base.key is None
    assert cost(dear) > cost(base)
    assert cost(cached) < cost(base)
    assert cost(longer) > cost(base)
    assert cost(same) == cost(base)


def test_a_value_out_of_reach_is_a_result() -> None:
    _, found = outcomes("objectives.qps=1e7")
    assert isinstance(found.plan, Infeasible)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("lengths.prompt", "vary"),
        ("=5", "vary"),
        ("lengths.prompt=", "vary"),
        ("lengths.promt=5", "lengths.promt"),
        ("lengths.prompt=many", "lengths.prompt"),
        ("lengths.prompt.more=5", "vary"),
        ("pool.accelerators.l5.count=4", "vary"),
        ("pool.accelerators.7.count=4", "vary"),
        ("pool.accelerators=4", "accelerators"),
        ("pool.accelerators.l4.count=0", "accelerators.1.count"),
    ],
)
def test_a_wrong_key_or_value_is_named(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        outcomes(text)
    assert caught.value.field == field
