"""``run SPEC.json``: an ingestion whose progress, summary and errors are JSON lines."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from pathlib import Path

from coordinator.ingest.faults import error_to_dict
from coordinator.ingest.run import ingest
from coordinator.ingest.spec import (
    IngestSpec,
    IngestSummary,
    spec_from_json,
    summary_to_dict,
)
from ragschema.errors import Cancelled, InternalError, NotFound, RagrigError

log = logging.getLogger(__name__)

_EVERY_S = 0.1


class LineReporter:
    """Writes progress as JSON lines, at most ten a second but every phase's ends."""

    def __init__(self) -> None:
        self._phase = ""
        self._sent_s = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if phase == self._phase and done < total and now_s - self._sent_s < _EVERY_S:
            return
        self._phase, self._sent_s = phase, now_s
        emit({"phase": phase, "done": done, "total": total})


def emit(body: dict[str, object]) -> None:
    """One line; a reader that is gone does not stop an ingestion."""
    try:
        sys.stdout.write(json.dumps(body) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        log.debug("nobody reads the progress")


def run_command(spec_path: Path) -> int:
    """Runs to the end; returns 0, or 1 for an error and where the spec says so."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        spec = _load(spec_path)
        summary = asyncio.run(_until_signalled(spec))
    except RagrigError as error:
        emit({"error": error_to_dict(error)})
        return 1
    except Exception as error:
        log.debug("defect in ingestion", exc_info=error)
        hidden = InternalError(f"ingestion failed: {type(error).__name__}: {error}")
        emit({"error": error_to_dict(hidden)})
        return 1
    emit({"summary": summary_to_dict(summary)})
    return exit_code(spec, summary)


def exit_code(spec: IngestSpec, summary: IngestSummary) -> int:
    """1 when nothing could be read, or something was skipped and the spec is strict."""
    nothing = not summary.read and not summary.deleted
    return int(nothing or (spec.strict and bool(summary.skipped)))


def _load(path: Path) -> IngestSpec:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}", field="spec") from error
    return spec_from_json(text)


async def _until_signalled(spec: IngestSpec) -> IngestSummary:
    """Stops cleanly on SIGTERM and SIGINT; what was embedded stays staged."""
    task = asyncio.ensure_future(ingest(spec, LineReporter()))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError as error:
        raise Cancelled(
            "ingestion was stopped",
            hint="run it again to continue; the collection is as it was",
        ) from error
