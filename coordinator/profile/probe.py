"""What can be measured: a call with features, and the roles that its time belongs to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One role that calls give times of.

    Attributes:
        terms: of the model that is fitted to its samples.
        about: conditions that are the same for all of them.
    """

    role: str
    variant: str
    threads: int
    about: Mapping[str, str | float]
    terms: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """Seconds of one role in one call, and the call's features as they turned out."""

    at: Mapping[str, float]
    seconds: float


#: One call; by role name.
Call = Callable[[], Awaitable[Mapping[str, Reading]]]


@dataclass(frozen=True)
class Probe:
    """Calls that are measured together.

    Attributes:
        points: a call per point; told apart by the features that they give.
    """

    kinds: tuple[Kind, ...]
    points: tuple[Call, ...]

    @property
    def name(self) -> str:
        """For a progress bar."""
        return f"{self.kinds[0].role} {self.kinds[0].variant}"
