"""Runs one index command of the retrieval node's package in a process of its own.

The process may read files nobody vouches for: however it ends, the caller gets
a result or a typed error, and it never outlives us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from coordinator.ingest.faults import error_from_dict
from coordinator.supervisor.environment import child_environment
from ragschema.errors import CorruptData, InternalError, RagrigError

#: Called with (phase, done, total).
Progress = Callable[[str, int, int], None]

_TETHER: Final = "coordinator.ingest.tether"
_MAX_LINE_BYTES = 16 << 20
#: What a process dies of that trusted a damaged file.
_FILE_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGXCPU}
)


async def run_index_command(
    command: str,
    spec: Mapping[str, object],
    progress: Progress,
    *,
    threads: int = 1,
    reads: Path | None = None,
) -> dict[str, Any]:
    """The command's result; cancelling kills the process.

    Args:
        command: such as "index-import".
        reads: a file that is to blame when the process is killed by what it read.

    Raises:
        CorruptData: ``reads`` ended the process.
        RagrigError: the command's own error, or InternalError when it died otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="ragrig-index-") as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(dict(spec)), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", _TETHER, str(os.getpid())),
            *(sys.executable, "-m", "retrieval_node", command, str(path)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=child_environment(threads),
            limit=_MAX_LINE_BYTES,
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
    result = last.get("result")
    if code != 0 or not isinstance(result, dict):
        raise _death(command, code, reads)
    return result


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


def _death(command: str, code: int, reads: Path | None) -> RagrigError:
    if reads is not None and -code in _FILE_SIGNALS:
        name = signal.Signals(-code).name
        return CorruptData(
            f"{reads} ended the process that read it ({name}): it is damaged, or far too large",
            field="file",
            hint="write it again with faiss.write_index",
        )
    return InternalError(
        f"{command} ended with code {code} and no result",
        hint="it may have run out of memory; the collection is as it was",
    )
