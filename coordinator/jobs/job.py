"""A background ingestion as its clients see it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ragschema.errors import RagrigError


class JobState(enum.StrEnum):
    """Where a job is; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class Job:
    """One state of one job.

    Attributes:
        phase: what the ingestion does now; empty while it waits.
        done: items of the phase that are finished.
        total: items of the phase; 0 while nobody knows.
        summary: what the ingestion reported at its end.
        created_at: ISO 8601, UTC, as the other times.
    """

    id: str
    collection: str
    created_at: str
    state: JobState = JobState.WAITING
    phase: str = ""
    done: int = 0
    total: int = 0
    summary: Mapping[str, Any] | None = None
    error: RagrigError | None = None
    started_at: str | None = None
    finished_at: str | None = None


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
