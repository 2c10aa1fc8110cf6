"""Chooses the next tokens of a batch, one row of logits per sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from llm_node.engine.draw import chance, draw
from llm_node.engine.penalties import Penalised, Tally, has_penalties, penalise
from ragschema.types import Sampling


@dataclass(eq=False)
class SamplerRow:
    """What the next token of one sequence depends on besides its logits.

    Lives as long as its sequence, whose growing lists it shares.

    Attributes:
        token_ids: prompt, generated tokens and injected context.
        output_ids: generated tokens alone.
        seed: with the number of output tokens, all that chance depends on.
        ends: ids that would end the sequence; held back for ``min_tokens``.
        plain: the best token is chosen, and nothing else is asked.
    """

    sampling: Sampling
    token_ids: Sequence[int]
    output_ids: Sequence[int]
    seed: int
    ends: tuple[int, ...] = ()
    plain: bool = field(init=False)
    tally: Tally | None = field(init=False)

    def __post_init__(self) -> None:
        sampling = self.sampling
        self.tally = Tally() if has_penalties(sampling) else None
        self.plain = (
            sampling.temperature == 0
            and sampling.logprobs is None
            and sampling.min_tokens == 0
            and self.tally is None
        )

    @property
    def held_back(self) -> tuple[int, ...]:
        """Ids that must not be chosen now."""
        return self.ends if len(self.output_ids) < self.sampling.min_tokens else ()


@dataclass(frozen=True)
class Chosen:
    """A token, and how likely it was when that was asked for."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Penalties and held-back ends, then the best token or a drawn one.

    Log probabilities are those of the model, before penalties and temperature.
    """

    def choose(
        self,
        logits: torch.Tensor,
        rows: Sequence[SamplerRow],
        best: Sequence[int] | None = None,
    ) -> list[Chosen]:
        """One token per row of logits [n, vocabulary], float32, which stay as they are.

        Args:
            best: the likeliest token of each row, where somebody knows it already.
        """
        if all(row.plain for row in rows):
            ids_of = logits.argmax(dim=-1).tolist() if best is None else best
            return [Chosen(token_id) for token_id in ids_of]
        shaped = _shaped(logits, rows)
        ids: list[int] = shaped.argmax(dim=-1).tolist()
        drawn = [i for i, row in enumerate(rows) if row.sampling.temperature > 0]
        if drawn:
            samplings = [rows[i].sampling for i in drawn]
            chances = [chance(rows[i].seed, len(rows[i].output_ids)) for i in drawn]
            for i, token_id in zip(drawn, draw(shaped[drawn], samplings, chances), strict=True):
                ids[i] = token_id
        chosen = [Chosen(token_id) for token_id in ids]
        told = [i for i, row in enumerate(rows) if row.sampling.logprobs is not None]
        if told:
            counts = [rows[i].sampling.logprobs or 0 for i in told]
            likely = _likely(logits[told], [ids[i] for i in told], counts)
            for i, one in zip(told, likely, strict=True):
                chosen[i] = one
        return chosen


def _shaped(logits: torch.Tensor, rows: Sequence[SamplerRow]) -> torch.Tensor:
    """Logits that are chosen from; a copy where they differ."""
    penalised = []
    for i, row in enumerate(rows):
        if row.tally is not None:
            row.tally.update(row.token_ids, row.output_ids)
            penalised.append(Penalised(i, row.sampling, row.tally))
    held = [
        (i, token_id)
        for i, row in enumerate(rows)
        for token_id in row.held_back
        if 0 <= token_id < logits.shape[-1]
    ]
    if not penalised and not held:
        return logits
    logits = logits.clone()
    if penalised:
        penalise(logits, penalised)
    if held:
        places = torch.tensor(held, device=logits.device)
        logits[places[:, 0], places[:, 1]] = -math.inf
    return logits


def _likely(logits: torch.Tensor, ids: list[int], counts: list[int]) -> list[Chosen]:
    """Chosen ids with their log probabilities and those of the likeliest."""
    logprobs = torch.log_softmax(logits, dim=-1)
    own = logprobs.gather(-1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(max(counts), logits.shape[-1]), dim=-1)
    tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Chosen(token_id, logprob, tuple(zip(top_ids, top_values, strict=True))[:count])
        for token_id, logprob, count, (top_ids, top_values) in zip(
            ids, own, counts, tops, strict=True
        )
    ]
