"""One ingestion as a process of its own, with its progress."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.supervisor.environment import child_environment
from coordinator.supervisor.logs import tail
from ragschema.errors import InternalError, RagrigError, all_error_types

_MAX_LINE_BYTES = 64 << 20
_GRACE_S = 10.0
_MODULE = "coordinator.ingest"


@dataclass(frozen=True)
class Progress:
    """How far a phase is; ``total`` 0 means that nobody knows yet."""

    phase: str
    done: int
    total: int


@dataclass(frozen=True)
class IngestionEnd:
    """The child's summary as it wrote it, and its exit code."""

    summary: Mapping[str, Any]
    exit_code: int


async def run_ingestion(
    spec_json: str,
    threads: int,
    on_progress: Callable[[Progress], None],
    program: tuple[str, ...] | None = None,
) -> IngestionEnd:
    """Runs ``python -m coordinator.ingest run SPEC.json`` to its end.

    Cancelling it ends the child, and the collection stays as it was.

    Args:
        spec_json: content of the spec file.
        threads: of index training.
        program: what to run instead, for tests; the spec file's path follows.

    Raises:
        RagrigError: what the child reported; InternalError when it died silently.
    """
    argv = program or _program()
    with tempfile.TemporaryDirectory(prefix="ragrig-ingest-") as folder:
        spec, log = Path(folder) / "spec.json", Path(folder) / "log"
        spec.write_text(spec_json, encoding="utf-8")
        with log.open("wb") as errors:
            child = await asyncio.create_subprocess_exec(
                *argv,
                str(spec),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=child_environment(threads),
                limit=_MAX_LINE_BYTES,
                start_new_session=True,
            )
        try:
            last = await _follow(child, on_progress)
            code = await child.wait()
        finally:
            await _end(child)
        return _outcome(last, code, tail(log))


def _program() -> tuple[str, ...]:
    """The ingestion, tied to this process: it ends when we do, however we do."""
    return (sys.executable, "-m", _MODULE, "run", "--parent-pid", str(os.getpid()))


async def _follow(
    child: asyncio.subprocess.Process, on_progress: Callable[[Progress], None]
) -> Mapping[str, Any]:
    """Passes progress on; returns the line with the summary or the error."""
    assert child.stdout is not None
    last: Mapping[str, Any] = {}
    async for line in child.stdout:
        message = _parsed(line)
        if "phase" in message:
            on_progress(
                Progress(str(message["phase"]), int(message["done"]), int(message["total"]))
            )
        elif "summary" in message or "error" in message:
            last = message
    return last


def _parsed(line: bytes) -> Mapping[str, Any]:
    """One JSON object; a library that prints to stdout must not end an ingestion."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _outcome(last: Mapping[str, Any], code: int, log_tail: str) -> IngestionEnd:
    if "summary" in last:
        return IngestionEnd(last["summary"], code)
    if "error" in last:
        raise _typed(last["error"])
    raise InternalError(
        f"the ingestion ended with code {code} and no summary; it said last:\n{log_tail}",
        hint="the collection is as it was; run it again",
    )


def _typed(raw: Mapping[str, Any]) -> RagrigError:
    cls = all_error_types().get(str(raw.get("type")), InternalError)
    return cls(str(raw.get("message")), field=raw.get("field"), hint=raw.get("hint"))


async def _end(child: asyncio.subprocess.Process) -> None:
    """Leaves nothing behind, neither the child nor an index builder of its."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), _GRACE_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()
