"""The chat body: OpenAI's, as far as retrieval-augmented answers go, plus ragrig's fields."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from coordinator.rest.answer_schema import MaxTokens, OpenAiAnswering
from coordinator.rest.schemas import MAX_TEXT_CHARS, MAX_TURNS, NOT_BOTH, WHOLE, Strict
from ragschema.errors import InvalidInput
from ragschema.sampling import MAX_LOGPROBS
from ragschema.types import ChatMessage, Sampling

#: Options of OpenAI's API that would change the answer and that ragrig lacks.
UNSUPPORTED = frozenset(
    {
        "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "audio",
        "modalities", "logit_bias", "prediction", "reasoning_effort",
        "response_format", "web_search_options", "verbosity",
    }
)  # fmt: skip

TopLogprobs = Annotated[
    int, Field(ge=0, le=MAX_LOGPROBS, description="more than 0 needs `logprobs`"), WHOLE
]


class TextPart(Strict):
    """A piece of text; other kinds of content are not read."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


Content = (
    Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
    | Annotated[list[TextPart], Field(min_length=1, max_length=64)]
)


class ChatTurn(Strict):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Annotated[str, Field(max_length=64)] | None = None

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


def _question_last(turns: list[ChatTurn]) -> list[ChatTurn]:
    if turns[-1].role != "user" or not turns[-1].text().strip():
        raise PydanticCustomError(
            "question", "the last message must be the user's and must not be empty"
        )
    return turns


Messages = Annotated[
    list[ChatTurn], Field(min_length=1, max_length=MAX_TURNS), AfterValidator(_question_last)
]


class ChatBody(OpenAiAnswering):
    """Messages whose last one, from the user, is the question."""

    unsupported: ClassVar[frozenset[str]] = UNSUPPORTED
    model_config = ConfigDict(
        json_schema_extra={
            **NOT_BOTH,
            "examples": [
                {
                    "model": "ragrig/docs",
                    "messages": [{"role": "user", "content": "How do I rotate the API key?"}],
                }
            ],
        }
    )
    messages: Messages
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    store: Literal[False] | None = None

    def question(self) -> str:
        return self.messages[-1].text()

    def history(self) -> tuple[ChatMessage, ...]:
        """The turns before the question; ``developer`` is today's name of ``system``."""
        roles = {"developer": "system"}
        return tuple(
            ChatMessage(roles.get(turn.role, turn.role), turn.text()) for turn in self.messages[:-1]
        )

    def sampling(self) -> Sampling:
        """Raises InvalidInput for options that contradict each other."""
        return self.sampled(self.max_completion_tokens or self.max_tokens, self._alternatives())

    def _alternatives(self) -> int | None:
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise InvalidInput(
                f"{self.top_logprobs} alternatives are asked for without logprobs",
                field="top_logprobs",
                hint="set logprobs to true",
            )
        return None
