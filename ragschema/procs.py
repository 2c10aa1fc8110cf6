"""Process hygiene shared by every node: die with the parent, announce, log."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ragschema.errors import RagrigError

_PR_SET_PDEATHSIG = 1


def exit_with_parent(parent_pid: int) -> None:
    """Asks the kernel to send SIGTERM when the parent ends, however it ends.

    Linux only; elsewhere the supervisor's own clean-up has to do. The check
    after the call closes the gap in which the parent may already be gone.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise SystemExit(f"parent process {parent_pid} is gone; not starting")


def announce(ready_file: Path, name: str, address: str) -> None:
    """Tells the supervisor, atomically, where this process listens."""
    body = json.dumps({"name": name, "address": address, "pid": os.getpid()})
    draft = ready_file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(body, encoding="utf-8")
    os.replace(draft, ready_file)


def setup_logging(node: str, level: str = "INFO") -> None:
    """One line per event on stderr, with the node's name."""
    logging.basicConfig(
        level=level,
        format=f"%(asctime)s %(levelname)s {node} %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )


def calm_thread_pools(threads: int) -> None:
    """Sets the OpenMP and BLAS environment; call before importing torch or faiss.

    Two OpenMP runtimes that spin while they wait slow each other down by two
    orders of magnitude on a loaded machine, hence the passive wait policy.
    """
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["NUMBA_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def run_command_line(
    app: Callable[..., object], program: str, arguments: list[str] | None = None
) -> None:
    """Runs a node's command line, in which ``serve`` may be left out.

    Args:
        app: a typer application.
        arguments: None for those of this process.

    Raises:
        SystemExit: with 1 after a RagrigError, which is printed in one line.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if not given or (given[0].startswith("-") and given[0] not in ("--help", "-h")):
        given = ["serve", *given]
    try:
        app(given, prog_name=program)
    except RagrigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
