from __future__ import annotations

from pathlib import Path

import pytest

from llm_node.config import LlmOptions
from llm_node.node import load_node
from ragschema.errors import IncompatibleRequest, InvalidInput
from ragschema.types import Role


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
        assert node.embedding_load() == (0, 0)
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
