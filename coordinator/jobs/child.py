"""Starts an ingestion that ends with the coordinator, however that ends.

Run as ``python -m coordinator.jobs.child PARENT_PID SPEC.json``. The kernel keeps
the death signal across exec, so the ingestion itself needs to know nothing of it.
"""

from __future__ import annotations

import os
import sys

from ragschema.procs import exit_with_parent


def main(argv: list[str]) -> None:
    """Replaces this process by the ingestion."""
    parent_pid, spec = int(argv[1]), argv[2]
    exit_with_parent(parent_pid)
    program = (sys.executable, "-m", "coordinator.ingest", "run", spec)
    os.execv(sys.executable, program)  # noqa: S606  no shell, and the program is our own


if __name__ == "__main__":
    main(sys.argv)
