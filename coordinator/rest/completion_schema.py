"""The body of OpenAI's older completions, as far as retrieval-augmented answers go."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from coordinator.rest.answer_schema import OpenAiAnswering
from coordinator.rest.schemas import NOT_BOTH, WHOLE, Text
from ragschema.sampling import MAX_LOGPROBS
from ragschema.types import Sampling

#: Options of OpenAI's API that would change the answer and that ragrig lacks.
UNSUPPORTED = frozenset({"suffix", "logit_bias"})

Logprobs = Annotated[
    int, Field(ge=0, le=MAX_LOGPROBS, description="alternatives told for every token"), WHOLE
]


class CompletionBody(OpenAiAnswering):
    """A prompt that is the question."""

    unsupported: ClassVar[frozenset[str]] = UNSUPPORTED
    model_config = ConfigDict(
        json_schema_extra={
            **NOT_BOTH,
            "examples": [{"model": "ragrig/docs", "prompt": "How do I rotate the API key?"}],
        }
    )
    prompt: Text
    logprobs: Logprobs | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None

    def sampling(self) -> Sampling:
        """Raises InvalidInput for options that contradict each other."""
        return self.sampled(self.max_tokens, self.logprobs)
