"""``python -m retrieval_node build``: the builder as a process of its own.

Standard output carries JSON lines only: progress, then one result or error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ragschema.errors import InternalError, RagrigError
from ragschema.procs import calm_thread_pools
from retrieval_node.build_spec import load_spec

Emit = Callable[[str], None]


def run_build(spec_path: Path, emit: Emit) -> int:
    """Builds and reports; returns the process's exit code."""
    try:
        spec = load_spec(spec_path)
        calm_thread_pools(spec.threads or len(os.sched_getaffinity(0)))
        # Imported here: the thread settings above must come before faiss.
        from retrieval_node.build import build

        def progress(phase: str, done: int, total: int) -> None:
            emit(json.dumps({"phase": phase, "done": done, "total": total}))

        result = build(spec, progress)
    except RagrigError as error:
        emit(json.dumps({"error": _described(error)}))
        return 1
    except OSError as error:
        failed = InternalError(f"cannot read the vectors: {error}", hint="check the disk")
        emit(json.dumps({"error": _described(failed)}))
        return 1
    emit(json.dumps({"result": asdict(result)}))
    return 0


def _described(error: RagrigError) -> dict[str, str | None]:
    return {
        "type": error.type_name,
        "message": error.message,
        "field": error.field,
        "hint": error.hint,
    }
