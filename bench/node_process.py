"""A retrieval node as a process of its own, and a client that asks it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from coordinator.nodes.clients import RetrievalClient
from ragschema.errors import Unavailable
from ragschema.types import CallContext

_START_S = 60.0


@contextlib.contextmanager
def node_process(data: Path, name: str, *options: str) -> Iterator[str]:
    """Serves ``data`` with the simd backend on one thread; gives the address."""
    with tempfile.TemporaryDirectory(prefix="ragrig-bench-") as scratch:
        ready, log = Path(scratch) / "ready", Path(scratch) / "log"
        command = [
            sys.executable, "-m", "retrieval_node", "serve", "--data", str(data), "--name", name,
            "--backend", "simd", "--threads", "1", "--ready-file", str(ready),
            "--parent-pid", str(os.getpid()), *options,
        ]  # fmt: skip
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            yield _address(process, ready, log)
        finally:
            process.terminate()
            process.wait(30)


def _address(process: subprocess.Popen[bytes], ready: Path, log: Path) -> str:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s and process.poll() is None:
        if ready.exists():
            return str(json.loads(ready.read_text(encoding="utf-8"))["address"])
        time.sleep(0.01)
    process.kill()
    raise Unavailable(f"the node did not start: {log.read_text(encoding='utf-8')[-2000:]}")


async def connect(name: str, address: str, streams: bool) -> RetrievalClient:
    """A client of the coordinator's kind; waits until the node answers."""
    client = RetrievalClient(name, address)
    client.streams = streams
    await client.status(CallContext.start(_START_S))
    return client


def pinned(cpu: int) -> tuple[str, ...]:
    """Options that pin the kernel's thread, where the machine has that processor."""
    return ("--cpus", str(cpu)) if cpu in os.sched_getaffinity(0) else ()
