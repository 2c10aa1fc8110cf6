"""Throughput of generation that retrieves every few tokens, and the best split of devices.

Source: Chameleon (arXiv 2310.09949), section 6.3. A batch of b sequences alternates
between i steps of inference and one retrieval; N_I inference devices each run a batch of
their own, and N_R sets of retrieval devices serve one batch at a time each.
"""

from __future__ import annotations

from dataclasses import dataclass

from ragschema.errors import InvalidInput


@dataclass(frozen=True)
class Interleaved:
    """One model and its retrieval.

    Attributes:
        interval: i, tokens between retrievals.
        batch: b, sequences.
        inference_s: L_I(b), of one step.
        retrieval_s: L_R(b), of one retrieval on one set of devices.
        devices_per_set: retrieval devices that answer together.
    """

    interval: int
    batch: int
    inference_s: float
    retrieval_s: float
    devices_per_set: int = 1

    def __post_init__(self) -> None:
        for name in ("interval", "batch", "inference_s", "retrieval_s", "devices_per_set"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{getattr(self, name)} is not positive", field=name)

    def tokens_per_s(self, inference: float, sets: float) -> float:
        """``min(i b N_I / (i L_I + L_R), i b N_R / L_R)``."""
        tokens = self.interval * self.batch
        by_inference = tokens * inference / self._round_s
        return min(by_inference, tokens * sets / self.retrieval_s)

    @property
    def _round_s(self) -> float:
        return self.interval * self.inference_s + self.retrieval_s

    def best_share(self) -> float:
        """Share of inference devices at which neither side waits for the other.

        More of one side than that changes nothing, more of the other slows both: the
        rates are equal at ``N_I / N_R = (i L_I + L_R) / L_R``.
        """
        per_set = self._round_s / self.retrieval_s
        return per_set / (per_set + self.devices_per_set)
