"""Shared embedding calls: tokens, and a second node."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.stages.embed import EmbedRequest, EmbedStage, share_out
from ragschema.errors import IncompatibleRequest, Overloaded, Unavailable
from ragschema.types import EmbedPurpose
from tests.coordinator.making import context, running_stage

QUERY = EmbedPurpose.QUERY


@given(st.integers(0, 10_000), st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_shares_add_up_and_follow_the_weights(total: int, weights: list[int]) -> None:
    shares = share_out(total, weights)
    assert sum(shares) == total
    assert min(shares) >= 0
    if sum(weights):
        for weight, share in zip(weights, shares, strict=True):
            assert abs(share - total * weight / sum(weights)) <= 1


async def test_a_lost_node_is_replaced(tmp_path: Path) -> None:
    async with running_stage(tmp_path, llm_nodes=2) as stage:
        embed = EmbedStage(stage.runtime.pool)
        await stage.kill("llm-0")
        for _ in range(4):
            (done,) = await embed([EmbedRequest(("a",), QUERY)], context())
            assert done.vectors.shape[0] == 1
        await stage.kill("llm-1")
        with pytest.raises(Unavailable):
            await embed([EmbedRequest(("a",), QUERY)], context())


async def test_a_refusal_is_passed_on_not_spread(tmp_path: Path) -> None:
    async with running_stage(tmp_path, llm_nodes=2) as stage:
        for llm in stage.llms:
            llm.failure = Overloaded("128 calls wait")
        with pytest.raises(Overloaded):
            await EmbedStage(stage.runtime.pool)([EmbedRequest(("a",), QUERY)], context())
        assert sum(len(llm.embeds) for llm in stage.llms) == 1


async def test_the_named_model_is_used(tmp_path: Path) -> None:
    def prepare(llms: list, _: list) -> None:  # type: ignore[type-arg]
        llms[1].fingerprint = "fp-2"

    async with running_stage(tmp_path, llm_nodes=2, prepare=prepare) as stage:
        embed = EmbedStage(stage.runtime.pool)
        for _ in range(3):
            await embed([EmbedRequest(("a",), QUERY, "fp-2")], context())
        assert [len(llm.embeds) for llm in stage.llms] == [0, 3]
        with pytest.raises(IncompatibleRequest):
            await embed([EmbedRequest(("a",), QUERY, "fp-3")], context())
        # A model that is merely away is no reason to ingest again.
        await stage.kill("llm-1")
        with pytest.raises(Unavailable):
            await embed([EmbedRequest(("a",), QUERY, "fp-2")], context())
