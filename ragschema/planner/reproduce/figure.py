"""A number of a paper beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One number of the paper beside ours.

    Attributes:
        half_digit: half a unit of the paper's last printed digit.
    """

    name: str
    paper: float
    ours: float
    half_digit: float

    @property
    def error_pct(self) -> float:
        """Distance from the values that print as the paper's, in per cent of it."""
        return max(0.0, abs(self.ours - self.paper) - self.half_digit) / self.paper * 100

    @property
    def raw_error_pct(self) -> float:
        """Signed distance from the printed value, in per cent of it."""
        return (self.ours - self.paper) / self.paper * 100


def summary(figures: Sequence[Figure]) -> Mapping[str, Mapping[str, float]]:
    """Plain numbers, for reports."""
    return {
        f.name: {
            "paper": f.paper,
            "ours": round(f.ours, 4),
            "error_pct": round(f.error_pct, 2),
            "raw_error_pct": round(f.raw_error_pct, 2),
        }
        for f in figures
    }
