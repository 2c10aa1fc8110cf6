"""What the planner proposes for an observed load, and how an observation becomes a workload."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.replan import propose as proposing
from coordinator.replan.observe import Observed
from coordinator.replan.proposal import Ask
from coordinator.replan.propose import candidate_for, propose
from coordinator.replan.workload import seen_as
from ragschema.errors import InvalidInput
from ragschema.lengths import PercentilesConfig, lengths_of
from ragschema.local import local_pool
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.mix import mix_of
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import read_plan, write_plan
from ragschema.planner.play import play
from ragschema.planner.problem import Decoding
from ragschema.workload import RagSchema, load_schema, parse_schema
from tests.coordinator.replan.planned import MACHINE, OUTPUT, PROMPT, Files, files

#: Scans are slow whatever their batch, so that a step in load asks for larger ones.
SCAN_S = 0.05


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return files(tmp_path_factory.mktemp("planned"), scan_s=SCAN_S, scans=1)


@pytest.fixture(autouse=True)
def one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What plans promise at several loads is not looked at here, and takes most of the time."""
    monkeypatch.setattr("ragschema.planner.points._REQUESTS", 100)
    monkeypatch.setattr(proposing, "this_machine", lambda: MACHINE)


def ask(made: Files, rate: float, **changes: Any) -> Ask:
    seen = Observed(60.0, rate, 100, float(PROMPT), float(OUTPUT), **changes.pop("seen", {}))
    plain = Ask(
        str(made.plan), str(made.schema), str(made.profile), False, seen, 8,
        (str(made.folder / "batches.yaml"), str(made.folder / "processes.yaml")), 20.0,
    )  # fmt: skip
    return replace(plain, **changes)


def test_a_step_in_load_asks_for_larger_batches_and_more_cores(made: Files) -> None:
    """Scans one by one serve 20 requests a second, and one core 28."""
    found = propose(ask(made, 25.0, most_running=8))
    assert found == propose(ask(made, 25.0, most_running=8)), "always the same"
    assert found.before["qps"] == pytest.approx(20.0, rel=1e-3)
    assert found.batches is not None
    assert found.before_s / found.batches.cost_s > 2
    batches = read_plan(Path(found.batches.plan))
    assert batches.stages["retrieval"][1] > 1
    assert batches.accelerators == 1
    assert batches.stages["decode"] == read_plan(made.plan).stages["decode"]
    assert max(point["arrivals_per_s"] for point in batches.points) >= 25.0, "its range has it"
    assert found.placement is not None
    assert read_plan(Path(found.placement.plan)).accelerators == 2
    assert found.placement.cost_s < found.batches.cost_s


def test_what_takes_longer_than_predicted_is_predicted_so(made: Files) -> None:
    """Seconds in decode at a load that the plan sustains, three times as many."""
    plain = propose(ask(made, 5.0))
    assert plain.corrected == {}
    decode_s = plain.before["e2e_s_mean"] - plain.before["ttft_s_p50"]
    slow = propose(ask(made, 5.0, seen={"stages_s": {"decode": 3 * decode_s}}))
    assert slow.corrected["decode"] == pytest.approx(3.0, rel=0.15)
    assert slow.before_s > plain.before_s
    far = propose(ask(made, 5.0, seen={"stages_s": {"decode": 100 * decode_s}}))
    assert far.corrected["decode"] == 4.0
    beyond = propose(ask(made, 200.0, seen={"stages_s": {"decode": 100 * decode_s}}))
    assert beyond.corrected == {}, "waiting beyond the plan's rate says nothing of a stage"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: prefill", "name: rerank", "the plan has"),
        ("device: local-core", "device: l4", "other hardware"),
        ("batch: 8", "batch: 7", "no batch"),
    ],
)
def test_a_plan_for_something_else_is_refused(
    made: Files, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = made.plan.read_text()
    assert old in text
    other = tmp_path / "plan.yaml"
    other.write_text(text.replace(old, new))
    with pytest.raises(InvalidInput, match=said):
        propose(ask(made, 5.0, plan=str(other)))


def schema(**changes: Any) -> RagSchema:
    plain = {
        "version": 1, "name": "desk", "generator": {"model": "llama-3-8b"},
        "lengths": {"question": 50, "prompt": 500, "output": 100}, "database": {"vectors": 1000},
    }  # fmt: skip
    return parse_schema(yaml.safe_dump(plain | changes), "test")


def seen(**changes: Any) -> Observed:
    return Observed(60.0, 2.0, 100, **changes)


def test_lengths_are_those_observed() -> None:
    found = seen_as(schema(), seen(prompt=1000.0, output=40.0))
    assert (found.lengths.question, found.lengths.prompt, found.lengths.output) == (50, 1000, 40)
    short = seen_as(schema(), seen(prompt=20.0, output=0.2))
    assert (short.lengths.question, short.lengths.prompt, short.lengths.output) == (20, 20, 1)
    assert seen_as(schema(), Observed(60.0, 2.0, 0)) == schema()


def test_distributions_keep_their_shape(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("tokens\n" + "\n".join(str(n) for n in range(100, 301)))
    lengths = {
        "prompt": {"min": 100, "p50": 400, "p99": 2000},
        "output": {"trace": str(trace), "column": "tokens"},
    }
    own = schema(lengths=lengths)
    before = mix_of(own)
    found = seen_as(own, seen(prompt=2 * before.prompt, output=before.output / 2))
    after = mix_of(found)
    assert after.prompt == pytest.approx(2 * before.prompt, rel=0.05)
    assert after.output == pytest.approx(before.output / 2, rel=0.05)
    assert isinstance(found.lengths.output, PercentilesConfig)
    assert lengths_of(found.lengths.prompt, "prompt").values[0] == pytest.approx(200, rel=0.05)


def test_classes_are_stretched_alike() -> None:
    classes = [
        {"name": "short", "share": 0.5, "lengths": {"prompt": 200}},
        {"name": "long", "share": 0.5, "lengths": {"prompt": 600, "output": 300}},
    ]
    found = seen_as(schema(classes=classes), seen(prompt=800.0, output=200.0))
    assert [each.lengths.prompt for each in found.classes] == [400, 1200]
    assert mix_of(found).prompt == pytest.approx(800.0)
    assert [each.lengths.output for each in found.classes] == [None, 300]


def test_hits_and_retrievals_are_those_observed() -> None:
    found = seen_as(schema(), seen(prompt=500.0, output=100.0, prefix_hit=0.45))
    assert found.cache.document_kv_hit == pytest.approx(0.5), "of passages, not of the question"
    assert seen_as(schema(), seen(prefix_hit=0.99)).cache.document_kv_hit == 1.0
    again = schema(retrieval={"per_sequence": 4})
    assert seen_as(again, seen(again=6.6)).retrieval.per_sequence == 8
    assert seen_as(again, seen(again=0.0)).retrieval.per_sequence == 2
    assert seen_as(schema(), seen(again=6.6)).retrieval.per_sequence == 1


def test_the_schema_is_the_plans(made: Files) -> None:
    assert load_schema(made.schema).name == read_plan(made.plan).schema


WHOLE = {
    "lengths": {"question": 16, "prompt": 200, "output": 32},
    "database": {"vectors": 10_000, "index": "ivfpq", "nlist": 64, "scan_share": 0.1, "dims": 32},
    "rewriter": {"model": "TINY"},
    "reranker": {"parameters": 1e6, "passages": 4},
    "retrieval": {"per_sequence": 3},
}


@pytest.mark.parametrize(
    ("decoding", "leave_out"),
    [
        (Decoding.APART, ""),
        (Decoding.TOGETHER, "rewriter"),
        (Decoding.APART, "retrieval"),
    ],
)
def test_a_stored_plan_is_weighed_as_it_was_planned(
    made: Files,
    tmp_path: Path,
    decoding: Decoding,
    leave_out: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With every stage there is, and decode on its own cores or not."""
    for module in ("verify", "points"):  # what is simulated is not looked at
        monkeypatch.setattr(f"ragschema.planner.{module}._REQUESTS", 100)
    model = str(made.folder / "writer" / "config.json")
    keys: dict[str, Any] = {**WHOLE, "rewriter": {"model": model}, "generator": {"model": model}}
    keys.pop(leave_out, None)
    own = schema(**keys)
    pool = local_pool(replace(MACHINE, cores=4), None, False)
    sizes = {"max_batch": 8, "max_decode_batch": 32, "max_iterative_batch": 8}
    plan = make_plan(own, pool, space=SearchSpace(decoding=decoding, **sizes))
    assert isinstance(plan, Plan), plan
    write_plan(plan, tmp_path / "plan.yaml")
    stored = read_plan(tmp_path / "plan.yaml")
    problem = problem_of(own, pool, SearchSpace(decoding=Decoding.EITHER))
    schedule = play(problem, candidate_for(problem, stored, pool))
    assert schedule is not None
    assert schedule.choices == plan.schedule.choices
    assert (schedule.placement, schedule.servers) == (
        plan.schedule.placement, plan.schedule.servers,
    )  # fmt: skip
    assert schedule.qps == pytest.approx(stored.predicted["qps"])
    assert schedule.ttft_s == pytest.approx(stored.predicted["ttft_s"])
