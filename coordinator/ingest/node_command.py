"""Runs a command of the retrieval node's package in a process that never outlives us."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coordinator.ingest.faults import error_from_dict

#: Called with (phase, done, total).
Progress = Callable[[str, int, int], None]

_TETHER: Final = "coordinator.ingest.tether"


@dataclass(frozen=True)
class CommandEnd:
    """How a command ended: its exit code and the last line that was not progress."""

    code: int
    last: Mapping[str, object]


async def run_node_command(
    command: str,
    spec: Path,
    progress: Progress,
    *,
    max_line_bytes: int,
    env: Mapping[str, str] | None = None,
) -> CommandEnd:
    """Follows the command to its end; cancelling kills the process.

    Args:
        spec: the command's JSON file.
        env: of the process; None: this process' own.

    Raises:
        RagrigError: the error that the command reported.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", _TETHER, str(os.getpid())),
        *(sys.executable, "-m", "retrieval_node", command, str(spec)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=env,
        limit=max_line_bytes,
    )
    try:
        last = await _follow(process, progress)
        code = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        raise
    if "error" in last:
        raise error_from_dict(last["error"])
    return CommandEnd(code, last)


async def _follow(process: asyncio.subprocess.Process, progress: Progress) -> dict[str, object]:
    """Passes progress on and returns the last other line."""
    assert process.stdout is not None
    last: dict[str, object] = {}
    async for line in process.stdout:
        try:
            body = json.loads(line)
        except ValueError:
            continue
        if not isinstance(body, dict):
            continue
        if "phase" in body:
            progress(str(body["phase"]), int(body.get("done", 0)), int(body.get("total", 0)))
        else:
            last = body
    return last
