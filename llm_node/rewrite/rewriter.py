"""Role rewrite: the node's generator turns a question into search queries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from llm_node.rewrite.template import Template, queries_in
from llm_node.roles import Generator
from ragschema.errors import InternalError
from ragschema.types import CallContext, ChatMessage, GenerateEnd, GenerateSpec, Sampling


@dataclass(frozen=True)
class Rewritten:
    """What a Rewrite call answers; no query: the model wrote nothing that could be one."""

    queries: tuple[str, ...]
    end: GenerateEnd


class Rewriter:
    """Greedy, so that a question gives the same queries again.

    Args:
        max_tokens: of all queries together.
    """

    def __init__(self, generator: Generator, template: Template, max_tokens: int) -> None:
        self._generator = generator
        self._template = template
        self._max_tokens = max_tokens

    async def rewrite(
        self,
        question: str,
        history: Sequence[ChatMessage],
        max_queries: int,
        context: CallContext,
    ) -> Rewritten:
        """Up to ``max_queries`` queries.

        Raises:
            RagrigError: what the generator raises, such as PayloadTooLarge.
        """
        prompt = self._template.fill(question, history, max_queries)
        turn = ChatMessage("user", prompt)
        spec = GenerateSpec((turn,), question, (), Sampling(max_tokens=self._max_tokens))
        pieces: list[str] = []
        async with aclosing(self._generator.generate(spec, context)) as events:
            async for event in events:
                if isinstance(event, GenerateEnd):
                    return Rewritten(_whole_queries("".join(pieces), event, max_queries), event)
                pieces.append(event.text)
        raise InternalError("the generator ended without saying why")


def _whole_queries(text: str, end: GenerateEnd, max_queries: int) -> tuple[str, ...]:
    """Without the last line where the tokens ended in its middle, if there is another."""
    if end.finish_reason == "length" and "\n" in text.strip():
        text = text.rstrip().rpartition("\n")[0]
    return queries_in(text, max_queries)
