"""A proposal in a process of its own: ``python -m coordinator.replan``.

Reads an ``Ask`` as JSON from stdin, writes a line of JSON to stdout: the proposal, or the error.
It runs at low priority, beside a rig that serves.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict

from pydantic import TypeAdapter

from coordinator.replan.proposal import Ask
from coordinator.replan.propose import propose
from ragschema import procs
from ragschema.errors import RagrigError

_NICE = 5


def main() -> int:
    """0: a proposal was made."""
    procs.exit_with_parent(int(sys.argv[1]))
    os.nice(_NICE)
    ask = TypeAdapter(Ask).validate_json(sys.stdin.read())
    try:
        # Libraries that print must not spoil the one line that is read.
        with contextlib.redirect_stdout(sys.stderr):
            found = propose(ask)
    except RagrigError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps({"proposal": asdict(found)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
