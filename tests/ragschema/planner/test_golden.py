"""The plans of all schemas that ship, as they were when they were last looked at.

A change of a cost model or of the search shows here as another plan. Where it is meant to,
look at the difference and write the files anew: ``python -m tests.ragschema.planner.test_golden``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ragschema.planner.assemble import SearchSpace
from ragschema.planner.axes import Objective
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import frontier_rows, plan_document
from ragschema.planner.problem import Decoding
from ragschema.pool import load_pool
from ragschema.workload import load_schema

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS, POOLS = ROOT / "examples" / "schemas", ROOT / "examples" / "pools"
GOLDEN = Path(__file__).parent / "golden"
_SMALL = SearchSpace(max_batch=32, max_decode_batch=256, max_iterative_batch=8)

#: By name of the golden file: schema, pool, objective, whether decode may share.
CASES: dict[str, tuple[str, str, Objective, Decoding]] = {
    path.stem: (
        path.stem,
        "chameleon" if path.stem.startswith("chameleon") else "rago",
        Objective.MAX_QPS_PER_CHIP,
        Decoding.APART,
    )
    for path in sorted(SCHEMAS.glob("*.yaml"))
    if path.stem not in ("chatbot", "support-desk")
} | {
    "chatbot": ("chatbot", "gpus", Objective.MIN_COST, Decoding.APART),
    "chatbot-shared": ("chatbot", "gpus", Objective.MIN_ENERGY, Decoding.EITHER),
    "support-desk": ("support-desk", "one-gpu", Objective.MAX_QPS_PER_CHIP, Decoding.EITHER),
}


def planned(name: str) -> dict[str, Any]:
    schema, pool, objective, decoding = CASES[name]
    space = SearchSpace(
        max_batch=_SMALL.max_batch, max_decode_batch=_SMALL.max_decode_batch,
        max_iterative_batch=_SMALL.max_iterative_batch, decoding=decoding,
    )  # fmt: skip
    plan = make_plan(
        load_schema(SCHEMAS / f"{schema}.yaml"), load_pool(POOLS / f"{pool}.yaml"), objective, space
    )
    assert isinstance(plan, Plan), plan
    document = plan_document(plan) | {"frontier": frontier_rows(plan.shown)}
    document.pop("definitions")
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


def differences(found: Any, wanted: Any, place: str = "") -> list[str]:
    """Where two documents differ; figures by more than rounding, simulated ones by more than
    two events that change places."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(found.keys() | wanted.keys())
        return [
            line for k in keys for line in differences(found.get(k), wanted.get(k), f"{place}.{k}")
        ]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{place}.{i}")]
    if isinstance(found, float) and isinstance(wanted, float):
        rel = 1e-3 if place.startswith(".simulated") else 1e-9
        same = found == pytest.approx(wanted, rel=rel, abs=1e-12)
    else:
        same = found == wanted
    return [] if same else [f"{place.lstrip('.')}: {found!r}, was {wanted!r}"]


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_the_one_we_know(name: str) -> None:
    wanted = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert differences(planned(name), wanted) == []


def test_every_shipped_schema_has_one() -> None:
    shipped = {path.stem for path in SCHEMAS.glob("*.yaml")}
    assert {schema for schema, *_ in CASES.values()} == shipped
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CASES)


def test_a_difference_is_told() -> None:
    assert differences({"a": [1.0, {"b": 2}]}, {"a": [1.0 + 1e-6, {"c": 2}]}) == [
        "a.0: 1.0, was 1.000001",
        "a.1.b: 2, was None",
        "a.1.c: None, was 2",
    ]


def _write_all() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name in CASES:
        text = json.dumps(planned(name), indent=1) + "\n"
        (GOLDEN / f"{name}.json").write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    _write_all()
