"""What may be said about the answer that is written: sampling, and the query body."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from coordinator.rest.names import CollectionName
from coordinator.rest.schemas import NOT_BOTH, WHOLE, Retrieval, Strict, Text
from ragschema.errors import InvalidInput
from ragschema.sampling import MAX_N, MAX_PENALTY, MAX_STOP_IDS
from ragschema.types import Sampling

MaxTokens = Annotated[int, Field(ge=1, le=32_768), WHOLE]
Temperature = Annotated[float, Field(ge=0, le=2, description="0 is greedy")]
#: Smaller ones are zero on the wire, which carries float32.
TopP = Annotated[float, Field(ge=1e-6, le=1)]
#: Every JSON reader keeps integers up to here exact.
Seed = Annotated[int, Field(ge=0, le=2**53 - 1), WHOLE]
StopText = Annotated[str, Field(min_length=1, max_length=64)]
StopList = Annotated[list[StopText], Field(max_length=4)]
Penalty = Annotated[float, Field(ge=-MAX_PENALTY, le=MAX_PENALTY)]
RepetitionPenalty = Annotated[
    float, Field(ge=0.01, le=100, description="above 1, what was read or written gets less likely")
]
TopK = Annotated[int, Field(ge=0, le=2**31 - 1, description="0 keeps every token"), WHOLE]
MinP = Annotated[
    float, Field(ge=0, le=1, description="least probability kept, as a share of the greatest")
]
MinTokens = Annotated[
    int, Field(ge=0, le=32_768, description="before so many, nothing else ends the answer"), WHOLE
]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE]
StopTokenIds = Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)]

Answers = Annotated[int, Field(ge=1, le=MAX_N), WHOLE]
ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        description="`ragrig/COLLECTION`, or the generator's name with `collection` set",
        examples=["ragrig/docs"],
    ),
]


class Answering(Retrieval):
    """Sampling options beyond those that OpenAI and ``/v1/query`` write differently.

    Generators that cannot do one of them refuse it by name.
    """

    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    min_tokens: MinTokens | None = None
    stop_token_ids: StopTokenIds | None = None
    ignore_eos: bool | None = None

    def shaped(self, sampling: Sampling) -> Sampling:
        """The same with these options.

        Raises:
            InvalidInput: more tokens are asked for than are allowed.
        """
        min_tokens = self.min_tokens or 0
        if min_tokens > sampling.max_tokens:
            raise InvalidInput(
                f"{min_tokens} tokens are more than max_tokens, {sampling.max_tokens}",
                field="min_tokens",
                hint="lower min_tokens or raise max_tokens",
            )
        given = {
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "ignore_eos": self.ignore_eos,
            "stop_ids": None if self.stop_token_ids is None else tuple(self.stop_token_ids),
            "min_tokens": min_tokens,
        }
        told: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(sampling, **told)


class StreamOptions(Strict):
    """What a stream carries besides the answer.

    Load generators ask for usage in every chunk and read the last one; that is where it is.
    """

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Literal[False] | None = None


class OpenAiAnswering(Answering):
    """The fields that both of OpenAI's bodies have."""

    model: ModelName
    collection: CollectionName | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: Seed | None = None
    stop: StopText | StopList | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    n: Answers | None = None

    def sampled(self, max_tokens: int | None, logprobs: int | None) -> Sampling:
        """Raises InvalidInput for options that contradict each other."""
        plain = Sampling()
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return self.shaped(
            Sampling(
                max_tokens=max_tokens or plain.max_tokens,
                temperature=plain.temperature if self.temperature is None else self.temperature,
                top_p=plain.top_p if self.top_p is None else self.top_p,
                seed=self.seed,
                stop=stop,
                logprobs=logprobs,
                n=self.n or 1,
            )
        )


class QueryBody(Answering):
    """A question over one collection."""

    model_config = ConfigDict(
        json_schema_extra={
            **NOT_BOTH,
            "examples": [
                {"collection": "docs", "question": "How do I rotate the API key?", "k": 5},
                {
                    "collection": "docs",
                    "question": "What changed in 2024?",
                    "filters": {"year": {"gte": 2024}},
                    "stream": True,
                },
            ],
        }
    )
    collection: CollectionName
    question: Text
    stream: bool = False
    max_tokens: MaxTokens = 256
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    seed: Seed | None = None
    stop: StopList = Field(default_factory=list)

    def sampling(self) -> Sampling:
        return self.shaped(
            Sampling(self.max_tokens, self.temperature, self.top_p, self.seed, tuple(self.stop))
        )
