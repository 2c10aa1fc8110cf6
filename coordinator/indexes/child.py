"""Runs one index command of the retrieval node's package in a process of its own.

The process may read files nobody vouches for: however it ends, the caller gets
a result or a typed error, and it never outlives us.
"""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordinator.ingest.node_command import Progress, run_node_command
from coordinator.supervisor.environment import child_environment
from ragschema.errors import CorruptData, InternalError, RagrigError

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
        end = await run_node_command(
            command, path, progress, max_line_bytes=_MAX_LINE_BYTES, env=child_environment(threads)
        )
    result = end.last.get("result")
    if end.code != 0 or not isinstance(result, dict):
        raise _death(command, end.code, reads)
    return result


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
