"""Which nodes are started and measured, and what a step of writing sequences is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.profile.collection import Vectors, clustered
from coordinator.profile.language import Writing
from coordinator.profile.plan import FULL_GRID, QUICK_GRID, ROLES, not_here, scope_of
from coordinator.profile.searching import index_scan_probe
from coordinator.profile.writing import mixed_step_s, step_s
from ragschema.errors import UpstreamError
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.types import GenerateEnd

VECTORS = Vectors(2000, 32, 16, 4)
HF = LlmNodeConfig("hf", roles=("generate",), generator="hf:/models/x", port=7000)


def test_without_a_rig_every_backend_is_measured() -> None:
    scope = scope_of(None, ROLES, True, VECTORS)
    kinds = {(n.backend, n.mode) for n in scope.retrieval_nodes}
    assert kinds == {("simd", None), ("simd", "contract16"), ("faiss", None), ("fpga", None)}
    rig = scope.rig(Path("/tmp/x"))
    assert rig.num_shards == 1
    assert rig.coordinator.port == 0
    assert rig.coordinator.recall_sampling.share == 0


def test_nodes_that_repeat_others_or_run_elsewhere_are_left_out() -> None:
    rig = RigConfig(
        llm_nodes=(HF, replace(HF, name="twin", port=7001), replace(HF, name="far", address="h:1")),
        retrieval_nodes=tuple(
            RetrievalNodeConfig(f"ret-{n}", backend="simd", threads=t, port=9000 + n)
            for n, t in enumerate((1, 1, 2))
        ),
    )
    scope = scope_of(rig, ROLES, True, VECTORS)
    assert [n.name for n in scope.llm_nodes] == ["hf"]
    assert scope.llm_nodes[0].roles == ("embed", "generate", "prefill", "decode")
    assert [(n.name, n.threads, n.port) for n in scope.retrieval_nodes] == [
        ("ret-0", 1, 0),
        ("ret-2", 2, 0),
    ]


def test_a_model_has_a_twin_where_there_are_cores_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.profile.plan.usable_cores", lambda: 2)
    rig = RigConfig(llm_nodes=(HF,))
    scope = scope_of(rig, ROLES, True, VECTORS, (1, 2))
    assert list(scope.twins) == ["hf-0t1"]
    assert [n.name for n in scope.rig(Path("/tmp/x")).llm_nodes] == [
        "hf-0t1",
        "hf-0t2",
        "hf-0t1-twin",
    ]
    assert not scope_of(rig, ("decode",), True, VECTORS, (1, 2)).twins
    whole = scope_of(rig, ROLES, True, VECTORS, (2,))
    assert not_here(whole)["crowded"] == "needs cores for two of a node with an hf: generator"


def test_each_node_with_each_number_of_threads() -> None:
    rig = RigConfig(
        llm_nodes=(HF,), retrieval_nodes=(RetrievalNodeConfig("r" * 32, backend="simd"),)
    )
    scope = scope_of(rig, ROLES, True, VECTORS, (1, 2))
    assert [(n.name, n.threads) for n in scope.llm_nodes] == [("hf-0t1", 1), ("hf-0t2", 2)]
    names = [n.name for n in scope.retrieval_nodes]
    assert len(set(names)) == 2
    assert all(len(name) <= 32 for name in names)
    assert scope.rig(Path("/tmp/x")).num_shards == 1


def test_roles_that_a_rig_lacks_are_explained() -> None:
    plain = not_here(scope_of(None, ROLES, True, VECTORS))
    assert {"prefill", "decode", "kv_transfer", "rerank", "rewrite"} <= plain.keys()
    assert "generate" not in plain
    model = not_here(scope_of(RigConfig(llm_nodes=(HF,)), ROLES, True, VECTORS))
    assert "prefill" not in model
    ranking = scope_of(RigConfig(llm_nodes=(replace(HF, reranker="/m"),)), ROLES, True, VECTORS)
    assert "rerank" in ranking.llm_nodes[0].roles
    assert "rerank" not in not_here(ranking)
    only = not_here(scope_of(None, ["embed"], True, VECTORS))
    assert "prefill" not in only, "nobody asked"


@pytest.mark.parametrize("grid", [QUICK_GRID, FULL_GRID])
def test_grids_cover_more_points_than_terms(grid: object) -> None:
    sizes = {"embed": 4, "prefill": 4, "decode": 3, "kv_tokens": 2, "rerank": 4, "scan": 4,
             "passages": 3, "hits": 2}  # fmt: skip
    for name, terms in sizes.items():
        points = getattr(grid, name)
        assert len(set(points)) == len(points) > terms


def writing(began_s: float, ended_s: float, tokens: int) -> Writing:
    return Writing(GenerateEnd("length", 8, tokens), began_s, ended_s)


def test_a_step_is_the_time_between_tokens_of_one_sequence() -> None:
    assert step_s([writing(1.0, 3.0, 11)]) == pytest.approx(0.2)
    assert step_s([writing(1.0, 3.0, 11), writing(1.2, 3.4, 12)]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "streams",
    [
        [writing(1.0, 2.0, 11), writing(3.0, 4.0, 11)],
        [writing(1.0, 4.0, 11), writing(3.5, 6.5, 11)],
        [writing(1.0, 1.0, 1)],
    ],
)
def test_sequences_that_did_not_write_together_tell_nothing(streams: list[Writing]) -> None:
    with pytest.raises(UpstreamError, match="did not write together"):
        step_s(streams)


def test_vectors_are_clustered_and_the_same_again() -> None:
    vectors = clustered(600, 16, 5)
    np.testing.assert_array_equal(vectors, clustered(600, 16, 5))
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert np.median(apart.min(axis=1)) < 0.6 * np.median(apart[np.isfinite(apart)])
    assert VECTORS.sparse().count == 1500


async def test_the_search_for_lists_is_measured_in_this_process() -> None:
    grid = replace(QUICK_GRID, index_lists=(64,), index_batches=(1, 4))
    probe = index_scan_probe(grid, 16)
    assert len(probe.points) == 4
    reading = (await probe.points[0]())["index_scan"]
    assert reading.at == {"batch": 1.0, "nlist": 64.0, "nprobe": 8.0}
    assert reading.seconds > 0


def _writing(began_s: float, ended_s: float) -> Writing:
    return Writing(GenerateEnd("length", 8, 2), began_s, ended_s)


def test_steps_with_pieces_of_a_prompt_lie_between_two_first_tokens() -> None:
    others = [_writing(0.5, 9.0), _writing(1.0, 8.0)]
    assert mixed_step_s(others, _writing(4.0, 4.0), _writing(2.0, 2.0), 4) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("began_s", "ended_s"),
    [(2.5, 9.0), (0.5, 3.5)],
    ids=["the other begins too late", "the other ends too early"],
)
def test_who_does_not_write_all_the_time_is_refused(began_s: float, ended_s: float) -> None:
    with pytest.raises(UpstreamError, match="1 answers were not written"):
        mixed_step_s([_writing(began_s, ended_s)], _writing(2, 2), _writing(4, 4), 4)
