from __future__ import annotations

from pathlib import Path

import pytest

from llm_node.config import LlmOptions
from llm_node.node import load_node
from ragschema.errors import IncompatibleRequest, InvalidInput
from ragschema.types import Role
from tests.llm_node.checkpoints import save_tiny_cross_encoder


async def test_node_without_a_role_refuses_its_calls(tiny_bert: Path) -> None:
    node = await load_node(LlmOptions("n", roles=(Role.EMBED,), embedder=str(tiny_bert)))
    try:
        assert node.capabilities() == ["tokenize", "embed", "embedder:tiny-bert"]
        assert [m.role for m in node.models()] == [Role.EMBED]
        with pytest.raises(IncompatibleRequest, match="'n' does not have the role generate"):
            _ = node.generator
        with pytest.raises(IncompatibleRequest, match="role generate"):
            node.token_offsets(Role.GENERATE, ["x"])
    finally:
        await node.close()


async def test_generator_alone_needs_no_embedder() -> None:
    node = await load_node(LlmOptions("n", roles=(Role.GENERATE,)))
    try:
        assert node.capabilities() == ["tokenize", "generate", "generator:extractive"]
        assert node.encoding_load() == (0, 0)
        with pytest.raises(IncompatibleRequest, match="role embed"):
            _ = node.scheduler
        with pytest.raises(IncompatibleRequest, match="role embed"):
            node.token_offsets(Role.EMBED, ["x"])
    finally:
        await node.close()


@pytest.mark.parametrize("value", ["", "  ", "bad\nkey", "schlüssel"])
async def test_unusable_key_names_the_variable_only(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("RAGRIG_TEST_KEY", value)
    options = LlmOptions(
        "n",
        roles=(Role.GENERATE,),
        generator="openai:http://127.0.0.1:1#m",
        api_key_env="RAGRIG_TEST_KEY",
    )
    with pytest.raises(InvalidInput, match="RAGRIG_TEST_KEY") as caught:
        await load_node(options)
    assert not value.strip() or value not in str(caught.value)


async def test_a_node_that_only_reranks(tmp_path: Path) -> None:
    directory = save_tiny_cross_encoder(tmp_path / "cross")
    node = await load_node(LlmOptions("n", roles=(Role.RERANK,), reranker=str(directory)))
    try:
        assert [model.role for model in node.models()] == [Role.RERANK]
        assert node.capabilities() == ["tokenize", "rerank"]
        done = await node.reranks.rank("the cat", ["a dog", "the cat sat"])
        assert done.scores.shape == (2,)
        with pytest.raises(IncompatibleRequest, match="does not have the role rerank"):
            node.token_offsets(Role.RERANK, ["x"])
    finally:
        await node.close()
    with pytest.raises(InvalidInput, match="rerank has no model"):
        await load_node(LlmOptions("n", roles=(Role.RERANK,)))
