"""Search problems: placements, server ranges, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from ragschema.errors import InvalidInput
from ragschema.planner.problem import Problem, Sharing
from ragschema.planner.stages import StageKind, StageTable
from tests.ragschema.planner.making import table

ONE = {1: [1.0, 1.5]}


def stages(*names: str) -> tuple[StageTable, ...]:
    kinds = {"retrieval": StageKind.SERVER, "decode": StageKind.DECODE}
    return tuple(table(name, ONE, kinds.get(name, StageKind.CHIP)) for name in names)


def test_consecutive_chip_stages_may_share_and_what_lies_between_blocks_them() -> None:
    problem = Problem(stages("encode", "retrieval", "rerank", "prefill", "decode"), 1, 8)
    assert set(problem.placements) == {
        ((0,), (1,), (2,), (3,)),
        ((0, 1, 2), (3,)),
        ((0,), (1,), (2, 3)),
        ((0, 1, 2, 3),),
    }


@pytest.mark.parametrize(
    ("sharing", "placements"),
    [(Sharing.NONE, {((0,), (1,), (2,))}), (Sharing.ALL, {((0, 1, 2),)})],
)
def test_sharing_may_be_fixed(sharing: Sharing, placements: set[object]) -> None:
    problem = Problem(stages("encode", "retrieval", "prefill", "decode"), 1, 8, sharing=sharing)
    assert set(problem.placements) == placements


def test_servers_come_with_chips_and_take_the_next_lower_row() -> None:
    retrieval = table("retrieval", {2: [1.0], 5: [0.5]}, StageKind.SERVER)
    chips = table("prefill", {1: [1.0]})
    decode = table("decode", {1: [1.0]}, StageKind.DECODE)
    problem = Problem((retrieval, chips, decode), 4, 30, chips_per_server=4)
    assert problem.lowest_total == 8
    assert problem.server_totals.tolist() == [[8, 19], [20, 30]]


def test_a_burst_is_at_most_the_largest_decode_batch() -> None:
    wide = table("prefill", {1: [1.0, 1.0, 1.0]})
    problem = Problem((wide, table("decode", ONE, StageKind.DECODE)), 1, 4)
    assert problem.bursts == (1, 2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("prefill",), "decode must be the last"),
        (("decode", "prefill"), "decode must be the last"),
        (("retrieval", "decode"), "no stage before decode"),
        (("retrieval", "prefill", "retrieval", "decode"), "more than one stage"),
    ],
)
def test_pipelines_that_cannot_be(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Problem(stages(*names), 1, 8)


def test_an_empty_range_of_chips_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"8 \.\. 4"):
        Problem(stages("prefill", "decode"), 8, 4)


def test_batches_that_do_not_divide_need_one_batch_for_all() -> None:
    odd = StageTable("prefill", StageKind.CHIP, (1,), (2, 3), np.ones((1, 2)))
    decode = table("decode", {1: [1.0, 1.0, 1.0]}, StageKind.DECODE)
    with pytest.raises(InvalidInput, match="batch 3 is no multiple of batch 2"):
        Problem((odd, decode), 1, 4)
    assert Problem((odd, decode), 1, 4, uniform_batch=True).bursts == (2, 3)


@pytest.mark.parametrize(
    ("counts", "batches", "latency"),
    [
        ((1,), (1, 2), np.ones((1, 1))),
        ((2, 1), (1,), np.ones((2, 1))),
        ((0, 1), (1,), np.ones((2, 1))),
        ((1,), (2, 2), np.ones((1, 2))),
        ((1,), (1,), np.zeros((1, 1))),
        ((1,), (1,), np.full((1, 1), np.nan)),
        ((), (), np.zeros((0, 0))),
    ],
)
def test_bad_tables_name_their_stage(
    counts: tuple[int, ...], batches: tuple[int, ...], latency: np.ndarray
) -> None:
    with pytest.raises(InvalidInput) as caught:
        StageTable("rerank", StageKind.CHIP, counts, batches, latency)
    assert caught.value.field == "stages.rerank"
