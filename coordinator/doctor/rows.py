"""A finding of the doctor."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """How a finding bears on running a rig."""

    OK = "ok"
    OPTIONAL = "optional"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        found: what there is, with its figures.
        enables: what ragrig does with it.
        install: what to do to get it or to get more of it; empty when nothing is.
    """

    name: str
    level: Level
    found: str
    enables: str
    install: str = ""
