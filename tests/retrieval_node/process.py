"""A retrieval node as a real process, for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class NodeProcess:
    """``python -m retrieval_node`` on a free port; a context manager."""

    def __init__(self, data: Path, scratch: Path, *options: str) -> None:
        self._ready = scratch / "node.ready"
        self.log = scratch / "node.log"
        command = [
            sys.executable, "-m", "retrieval_node", "--data", str(data), "--name", "ret-t",
            "--ready-file", str(self._ready), "--parent-pid", str(os.getpid()), *options,
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.address = self._wait()

    def _wait(self) -> str:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if self._ready.exists():
                return str(json.loads(self._ready.read_text())["address"])
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.process.kill()
        raise AssertionError(f"the node did not start:\n{self.log.read_text()}")

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """Sends SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)
