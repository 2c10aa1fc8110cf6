"""Makes tokens that were read or written less likely, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ragschema.types import I64, Sampling


class Tally:
    """The tokens of one growing sequence, each once, and how often it wrote them.

    Only what is new is looked at, so that a step does not get slower with the
    length of the sequence.
    """

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._ids = np.zeros(64, dtype=np.int64)
        self._written = np.zeros(64, dtype=np.int64)
        self._read = self._wrote = 0

    def update(self, token_ids: Sequence[int], output_ids: Sequence[int]) -> None:
        """Takes what was added to either since the last call."""
        for token_id in token_ids[self._read :]:
            self._place(token_id)
        for token_id in output_ids[self._wrote :]:
            self._written[self._place(token_id)] += 1
        self._read, self._wrote = len(token_ids), len(output_ids)

    def _place(self, token_id: int) -> int:
        place = self._places.setdefault(token_id, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._written = np.concatenate([self._written, np.zeros_like(self._written)])
        self._ids[place] = token_id
        return place

    @property
    def ids(self) -> I64:
        """int64 [m], every token that was read or written."""
        return self._ids[: len(self._places)]

    @property
    def written(self) -> I64:
        """int64 [m], how often each of ``ids`` was written."""
        return self._written[: len(self._places)]


@dataclass(frozen=True)
class Penalised:
    """A row of logits and what is known of its sequence."""

    row: int
    sampling: Sampling
    tally: Tally


def has_penalties(sampling: Sampling) -> bool:
    """Whether ``penalise`` would change anything."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


def penalise(logits: torch.Tensor, rows: Sequence[Penalised]) -> None:
    """Changes float32 logits [n, vocabulary] in place.

    A token anywhere in the sequence has a positive logit divided by the
    repetition penalty, a negative one multiplied with it. Then one that was
    written c > 0 times loses c * frequency_penalty + presence_penalty.
    """
    # Some models read more tokens than they write.
    known = [one.tally.ids < logits.shape[1] for one in rows]
    counts = [int(one.sum()) for one in known]

    def spread(values: list[float]) -> torch.Tensor:
        return torch.from_numpy(np.repeat(np.array(values, np.float32), counts)).to(logits.device)

    row = torch.from_numpy(np.repeat([one.row for one in rows], counts)).to(logits.device)
    chosen = [one.tally.ids[kept] for one, kept in zip(rows, known, strict=True)]
    ids = torch.from_numpy(np.concatenate(chosen)).to(logits.device)
    counted = np.concatenate(
        [one.tally.written[kept] for one, kept in zip(rows, known, strict=True)]
    )
    written = torch.from_numpy(counted).to(logits.device, torch.float32)
    repetition = spread([one.sampling.repetition_penalty for one in rows])
    frequency = spread([one.sampling.frequency_penalty for one in rows])
    presence = spread([one.sampling.presence_penalty for one in rows])
    values = logits[row, ids]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[row, ids] = values - frequency * written - presence * (written > 0)
