"""kNN-LM: the next token from neighbours and from the model.

Khandelwal et al., "Generalization through Memorization" (ICLR 2020): neighbours
weigh exp(-distance / temperature), those with the same token add up, and
p = lam * p_knn + (1 - lam) * p_lm.
"""

from __future__ import annotations

import math
from typing import Final

import torch

from llm_node.engine.request import KnnMix
from ragschema.errors import InvalidInput

#: Below it, dividing by a temperature becomes multiplying with infinity. Distances differ by
#: 1e-45 or not at all, so that a colder one changes nothing.
_COLDEST: Final = 1e-300
#: Logarithm, to base e, of the factor by which the model's own tokens are less likely where the
#: mixture has no room for them. It is 0 as a probability, and a number that JSON can tell.
_NEXT_TO_NOTHING: Final = -9999.0


def check_mix(mix: KnnMix, vocabulary: int) -> None:
    """Raises InvalidInput when the neighbours cannot be mixed in."""
    tokens, distances = mix.tokens, mix.distances
    if tokens.ndim != 1 or tokens.shape != distances.shape:
        raise InvalidInput(
            f"there are {tokens.shape} tokens and {distances.shape} distances",
            field="neighbour_tokens",
            hint="send one token and one distance per neighbour",
        )
    if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
        raise InvalidInput(
            f"tokens reach from {tokens.min()} to {tokens.max()}, the model knows {vocabulary}",
            field="neighbour_tokens",
            hint="build the datastore with this model's tokenizer",
        )
    if not all(math.isfinite(d) for d in distances.tolist()):
        raise InvalidInput("a distance is not a finite number", field="neighbour_distances")
    if not 0 <= mix.lam <= 1:
        raise InvalidInput(f"{mix.lam} is no weight", field="lam", hint="use 0 to 1")
    if not 0 < mix.temperature < math.inf:
        raise InvalidInput(
            f"{mix.temperature} is no temperature", field="temperature", hint="use more than 0"
        )


def mixed_logits(logits: torch.Tensor, mix: KnnMix) -> torch.Tensor:
    """float32 [vocabulary], logarithms of the mixed probabilities.

    Without neighbours the model's own distribution is left as it is. Where neighbours have all
    the weight, other tokens keep the model's order far below them: it decides when the
    neighbours' tokens may not be drawn, such as an end that comes too early.

    Args:
        logits: float32 [vocabulary] of the model.
    """
    own = torch.log_softmax(logits.double(), dim=-1)
    if not mix.tokens.size or mix.lam == 0:
        return own.float()
    distances = torch.from_numpy(mix.distances).double().to(logits.device)
    tokens = torch.from_numpy(mix.tokens).long().to(logits.device)
    beyond = distances - distances.min()
    weights = torch.softmax(-beyond / max(mix.temperature, _COLDEST), dim=-1)
    neighbours = torch.zeros_like(own).index_add_(0, tokens, weights)
    mixed = torch.log(mix.lam * neighbours + (1 - mix.lam) * own.exp())
    return torch.maximum(mixed, own + _NEXT_TO_NOTHING).float()
