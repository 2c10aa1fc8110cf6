"""The text of one growing sequence."""

from __future__ import annotations

from typing import Any

from llm_node.generate.detokenise import Detokeniser
from llm_node.generate.stops import StopMatcher
from ragschema.types import Sampling, TokenLogprob, TokenPiece


class Answer:
    """The text of one growing sequence, up to a stop string or its end.

    Args:
        stops: stop strings of the generator itself, besides the caller's.
        index: which of the request's answers.

    Attributes:
        tokens: generated so far.
        finish: ``stop`` or ``length`` once nothing more comes.
    """

    def __init__(
        self,
        tokenizer: Any,
        sampling: Sampling,
        eos: frozenset[int],
        stops: tuple[str, ...],
        index: int = 0,
    ) -> None:
        self._text = Detokeniser(tokenizer)
        self._stops = StopMatcher((*sampling.stop, *stops))
        self._min_tokens = sampling.min_tokens
        self._silent = (frozenset() if sampling.ignore_eos else eos) | set(sampling.stop_ids)
        self._index = index
        self._ready = ""
        self._unsent = 0
        self._logprobs: list[TokenLogprob] = []
        self.tokens = 0
        self.finish: str | None = None

    def add(self, token_id: int, logprob: TokenLogprob | None = None) -> bool:
        """Takes a token; False: it is one that ends a sequence, and no text."""
        self.tokens += 1
        self._unsent += 1
        if token_id in self._silent:
            return False
        if logprob is not None:
            self._logprobs.append(logprob)
        text = self._text.add(token_id)
        # Stop strings do not end an answer that is shorter than it was asked to be.
        self._ready += self._stops.feed(text, ends=self.tokens > self._min_tokens)
        self._stop()
        return True

    def end(self, finish: str) -> None:
        """Takes the engine's end, unless a stop string came first."""
        if self.finish is None:
            self._ready += self._stops.feed(self._text.flush()) + self._stops.flush()
            self.finish = finish
            self._stop()

    def _stop(self) -> None:
        if self._stops.stopped:
            self.finish = "stop"

    def take(self) -> TokenPiece | None:
        """Text that can be sent now, with the tokens since the last piece."""
        if not self._ready:
            return None
        piece = TokenPiece(self._ready, self._unsent, self._index, tuple(self._logprobs))
        self._ready, self._unsent = "", 0
        self._logprobs.clear()
        return piece
