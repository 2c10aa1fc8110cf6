"""One sequence's decode loop over a transformers model and its KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llm_node.generate.detokenise import Detokeniser
from llm_node.generate.sampling import Sampler
from llm_node.generate.stops import StopMatcher
from ragschema.types import Sampling

#: Prompt tokens of one step: between two steps a request can be cancelled, and
#: other sequences get their turn.
PREFILL_CHUNK = 256


@dataclass(frozen=True)
class Step:
    """What one step gave.

    Attributes:
        text: text that is ready to send, may be empty.
        tokens: tokens chosen in this step, 0 or 1.
        finish: ``stop`` or ``length`` when the sequence has ended.
    """

    text: str = ""
    tokens: int = 0
    finish: str | None = None


class DecodeLoop:
    """A prompt and what follows it. Steps block; run them in one worker thread.

    Args:
        prompt: token ids, at least one.
        limit: tokens to generate at most, the context's end considered.
        eos: ids that end the sequence and are not part of its text.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompt: Sequence[int],
        limit: int,
        eos: frozenset[int],
        sampling: Sampling,
        extra_stops: tuple[str, ...] = (),
    ) -> None:
        self._model = model
        self._pending = list(prompt)
        self._limit = limit
        self._eos = eos
        self._cache: Any = None
        self._sampler = Sampler(sampling)
        self._text = Detokeniser(tokenizer)
        self._stops = StopMatcher((*sampling.stop, *extra_stops))
        self.generated = 0

    def step(self) -> Step:
        """Reads a piece of the prompt, or chooses the next token."""
        chunk, self._pending = self._pending[:PREFILL_CHUNK], self._pending[PREFILL_CHUNK:]
        logits = self._forward(chunk)
        if self._pending:
            return Step()
        token = self._sampler.choose(logits)
        self._pending = [token]
        self.generated += 1
        if token in self._eos:
            return Step(self._rest(), 1, "stop")
        text = self._stops.feed(self._text.add(token))
        if self._stops.stopped:
            return Step(text, 1, "stop")
        if self.generated < self._limit:
            return Step(text, 1)
        text += self._rest()
        return Step(text, 1, "stop" if self._stops.stopped else "length")

    def _rest(self) -> str:
        text = self._stops.feed(self._text.flush())
        return text + self._stops.flush()

    def _forward(self, ids: Sequence[int]) -> torch.Tensor:
        """float32 [vocabulary], logits behind the last of the ids."""
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([list(ids)]),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = output.past_key_values
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits
