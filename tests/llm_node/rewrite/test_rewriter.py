from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from llm_node.config import LlmOptions
from llm_node.node import load_node
from llm_node.rewrite.rewriter import Rewriter
from llm_node.rewrite.template import Template
from llm_node.roles import Generator
from ragschema.errors import IncompatibleRequest, InternalError, InvalidInput
from ragschema.types import (
    CallContext,
    ChatMessage,
    GenerateEnd,
    GenerateSpec,
    Role,
    TokenPiece,
)


class _Scripted:
    """Writes what it was given, in pieces of three characters."""

    def __init__(self, text: str, finish: str | None = "stop") -> None:
        self.text = text
        self.finish = finish
        self.specs: list[GenerateSpec] = []

    async def generate(self, spec: GenerateSpec, context: CallContext) -> AsyncGenerator[Any, None]:
        self.specs.append(spec)
        for at in range(0, len(self.text), 3):
            yield TokenPiece(self.text[at : at + 3])
        if self.finish is not None:
            yield GenerateEnd(self.finish, 20, 7)


async def _rewrite(generator: _Scripted, queries: int = 3) -> tuple[str, ...]:
    template = Template("{max_queries}|{history}|{question}")
    rewriter = Rewriter(cast("Generator", generator), template, 50)
    history = (ChatMessage("user", "before"),)
    done = await rewriter.rewrite("now?", history, queries, CallContext.start(10))
    assert done.end.prompt_tokens == 20
    return done.queries


async def test_the_prompt_is_one_greedy_turn_and_lines_are_queries() -> None:
    generator = _Scripted("1. first thing\n2. second thing\n")
    assert await _rewrite(generator) == ("first thing", "second thing")
    (spec,) = generator.specs
    assert spec.messages == (ChatMessage("user", "3|user: before|now?"),)
    assert (spec.sampling.temperature, spec.sampling.max_tokens) == (0.0, 50)


async def test_a_last_line_that_was_cut_is_no_query() -> None:
    assert await _rewrite(_Scripted("whole query\nhalf a que", "length")) == ("whole query",)
    assert await _rewrite(_Scripted("only half a que", "length")) == ("only half a que",)
    assert await _rewrite(_Scripted("a\nb")) == ("a", "b")


async def test_nothing_written_is_no_query_and_no_end_a_defect() -> None:
    assert await _rewrite(_Scripted("\n \n")) == ()
    with pytest.raises(InternalError, match="without saying why"):
        await _rewrite(_Scripted("a", None))


async def test_extractive_generators_cannot_rewrite() -> None:
    with pytest.raises(InvalidInput, match="'extractive' cannot rewrite") as caught:
        await load_node(LlmOptions("n", roles=(Role.REWRITE,)))
    assert "hf:DIR or openai:URL" in str(caught.value)
    node = await load_node(LlmOptions("n", roles=(Role.GENERATE,)))
    with pytest.raises(IncompatibleRequest, match="role rewrite"):
        _ = node.rewriter
    await node.close()
