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

Emit = Callable[[str], None]


def run_build(spec_path: Path, emit: Emit) -> int:
    """Builds and reports; returns the process's exit code."""
    calm_thread_pools(len(os.sched_getaffinity(0)))
    try:
        # Imported here: the thread settings above must come before faiss.
        from retrieval_node.build import build
        from retrieval_node.build_spec import load_spec

        def progress(phase: str, done: int, total: int) -> None:
            emit(json.dumps({"phase": phase, "done": done, "total": total}))

        result = build(load_spec(spec_path), progress)
    except RagrigError as error:
        emit(json.dumps({"error": _described(error)}))
        return 1
    except OSError as error:
        failed = InternalError(f"cannot write the index: {error}", hint="check space and rights")
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
