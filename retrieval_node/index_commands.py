"""``python -m retrieval_node index-import | index-export | index-tune``.

Each reads a JSON file that says what to do. Standard output carries JSON lines
only: progress, then one result or error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ragschema.errors import InternalError, RagrigError, Unavailable
from ragschema.procs import calm_thread_pools

Emit = Callable[[str], None]
Progress = Callable[[str, int, int], None]
Spec = Annotated[Path, typer.Argument(help="JSON file that says what to do.")]

_EVERY_S = 0.1
_FULL_ERRNOS = frozenset({27, 28, 122})  # EFBIG, ENOSPC, EDQUOT


def with_index_commands(app: typer.Typer) -> typer.Typer:
    """The command line with the commands added."""
    app.command("index-import")(_command(run_import, "Take over a faiss index."))
    app.command("index-export")(_command(run_export, "Write a collection as a faiss index."))
    app.command("index-tune")(_command(run_tune, "Measure the recall of a collection."))
    return app


def _command(run: Callable[[Path, Emit], int], what: str) -> Callable[[Path], None]:
    def command(spec: Spec) -> None:
        raise typer.Exit(run(spec, _print_line))

    command.__doc__ = f"{what} JSON lines on standard output."
    return command


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_import(spec_path: Path, emit: Emit) -> int:
    """Imports and reports; returns the process's exit code."""

    def work(progress: Progress) -> object:
        from retrieval_node.index_spec import ImportSpec
        from retrieval_node.spec_file import read_spec

        spec = read_spec(spec_path, ImportSpec)
        # faiss is imported after the thread settings.
        calm_thread_pools(1)
        from retrieval_node.interop.faiss_file import limit_process
        from retrieval_node.interop.faiss_import import import_index

        limit_process(Path(spec.file))
        return import_index(spec, progress)

    return _reported(work, emit)


def run_export(spec_path: Path, emit: Emit) -> int:
    """Exports and reports; returns the process's exit code."""

    def work(progress: Progress) -> object:
        from retrieval_node.index_spec import ExportSpec
        from retrieval_node.spec_file import read_spec

        spec = read_spec(spec_path, ExportSpec)
        calm_thread_pools(1)
        from retrieval_node.interop.faiss_export import export_index

        return export_index(spec, progress)

    return _reported(work, emit)


def run_tune(spec_path: Path, emit: Emit) -> int:
    """Measures and reports; returns the process's exit code."""

    def work(progress: Progress) -> object:
        from retrieval_node.index_spec import TuneSpec
        from retrieval_node.spec_file import read_spec

        spec = read_spec(spec_path, TuneSpec)
        calm_thread_pools(spec.threads or len(os.sched_getaffinity(0)))
        from retrieval_node.measure_command import measure_collection

        return measure_collection(spec, progress)

    return _reported(work, emit)


class _Reporter:
    """Progress as JSON lines, at most ten a second but every phase's ends."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._phase = ""
        self._sent_s = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if phase == self._phase and done < total and now_s - self._sent_s < _EVERY_S:
            return
        self._phase, self._sent_s = phase, now_s
        self._emit(json.dumps({"phase": phase, "done": done, "total": total}))


def _reported(work: Callable[[Progress], Any], emit: Emit) -> int:
    try:
        result = work(_Reporter(emit))
    except RagrigError as error:
        emit(json.dumps({"error": _described(error)}))
        return 1
    except OSError as error:
        emit(json.dumps({"error": _described(_write_error(error))}))
        return 1
    emit(json.dumps({"result": asdict(result)}))
    return 0


def _write_error(error: OSError) -> RagrigError:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL_ERRNOS:
        return Unavailable(
            f"no space left to write{where}", hint="free disk space, then run it again"
        )
    return InternalError(
        f"cannot read or write: {error.strerror or error}{where}",
        hint="check that the files exist and that you may use them",
    )


def _described(error: RagrigError) -> dict[str, str | None]:
    return {
        "type": error.type_name,
        "message": error.message,
        "field": error.field,
        "hint": error.hint,
    }
