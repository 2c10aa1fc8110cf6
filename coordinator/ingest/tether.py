"""``python -m coordinator.ingest.tether PID COMMAND...``: runs a command that dies with PID.

A builder that outlived a killed ingestion would go on writing into the
collection. The kernel's parent-death signal survives the exec below.
"""

from __future__ import annotations

import os
import sys

from ragschema.procs import exit_with_parent


def main(arguments: list[str]) -> None:
    """Replaces this process with the command."""
    parent_pid, *command = arguments
    exit_with_parent(int(parent_pid))
    os.execv(command[0], command)  # noqa: S606  the command is our own, and no shell sees it


if __name__ == "__main__":
    main(sys.argv[1:])
