"""An ingestion that reports what STAND_IN_END says, in place of the real one."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from ragschema.procs import exit_with_parent


def main() -> None:
    command, option, parent_pid, spec_file = sys.argv[1:]
    assert (command, option) == ("run", "--parent-pid")
    exit_with_parent(int(parent_pid))
    spec = Path(spec_file).read_text()
    Path(os.environ["STAND_IN_SPEC"]).write_text(spec)
    print(json.dumps({"phase": "embed", "done": 1, "total": 2}), flush=True)
    print("a library that prints", flush=True)
    end = json.loads(os.environ["STAND_IN_END"])
    if "sleep" in end:
        Path(os.environ["STAND_IN_SPEC"] + ".pid").write_text(str(os.getpid()))
        time.sleep(600)
    if end["line"]:
        print(json.dumps(end["line"]), flush=True)
    print("last words", file=sys.stderr)
    raise SystemExit(end["code"])


if __name__ == "__main__":
    main()
