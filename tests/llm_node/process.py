"""Starts real LLM node processes for tests, and ends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_S = 120.0


@contextmanager
def node_process(directory: Path, *arguments: str) -> Iterator[str]:
    """A running node's address; it is gone when the block ends."""
    with mortal_node(directory, *arguments) as (address, process):
        yield address
        log = (directory / "node.log").read_text()
        assert process.poll() is None, log
        assert "Traceback" not in log, log


@contextmanager
def mortal_node(directory: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same with its process, which a test may kill."""
    ready, log = directory / "node.ready", directory / "node.log"
    command = [sys.executable, "-m", "llm_node", "serve", "--ready-file", str(ready)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--parent-pid", str(os.getpid()), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline_s = time.monotonic() + _START_S
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        yield str(json.loads(ready.read_text())["address"]), process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
