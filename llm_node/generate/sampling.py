"""Chooses the next token."""

from __future__ import annotations

import torch

from ragschema.errors import InternalError
from ragschema.types import Sampling


class Sampler:
    """Greedy, or temperature and top-p with a random stream of its own.

    The same seed, prompt and model give the same tokens, whatever else runs.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """Token id for logits [vocabulary].

        Raises:
            InternalError: the model produced NaN.
        """
        if bool(torch.isnan(logits).any()):
            raise InternalError("the model produced NaN", hint="its weights may be damaged")
        if self._temperature == 0:
            return int(logits.argmax())
        logits = logits.double()
        # From the maximum down, so that a tiny temperature cannot overflow.
        scaled = (logits - logits.max()) / max(self._temperature, 1e-4)
        probabilities = torch.softmax(scaled, dim=-1)
        if self._top_p < 1:
            return self._nucleus(probabilities)
        return int(torch.multinomial(probabilities, 1, generator=self._random))

    def _nucleus(self, probabilities: torch.Tensor) -> int:
        """The fewest tokens that together reach top_p; always one at least."""
        ordered, ids = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        kept = torch.where(before < self._top_p, ordered, torch.zeros_like(ordered))
        return int(ids[int(torch.multinomial(kept, 1, generator=self._random))])
