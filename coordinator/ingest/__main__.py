"""``python -m coordinator.ingest``: the processes of ingestion.

``run SPEC.json`` ingests and reports JSON lines on standard output;
``parse`` is the sandboxed parser, which answers requests on standard input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ragschema.procs import exit_with_parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the two; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.parent_pid is not None:
        exit_with_parent(options.parent_pid)
    if options.command == "run":
        from coordinator.ingest.command import run_command

        return run_command(options.spec)
    from pydantic import TypeAdapter

    from coordinator.ingest.limits import ParseLimits
    from coordinator.ingest.worker import serve

    serve(TypeAdapter(ParseLimits).validate_json(options.limits))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m coordinator.ingest", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="ingest what a spec file describes")
    run.add_argument("spec", type=Path, metavar="SPEC.json", help="an IngestSpec as JSON")
    parse = commands.add_parser("parse", help="parse files named on standard input")
    parse.add_argument("--limits", default="{}", help="ParseLimits as JSON")
    for command in (run, parse):
        command.add_argument("--parent-pid", type=int, help="end when this process ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
