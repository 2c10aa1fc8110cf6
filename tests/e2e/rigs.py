"""Whole rigs for tests: started with the command a user types, on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

RAGRIG = Path(sys.executable).with_name("ragrig")
START_S = 180.0
STOP_S = 40.0


@dataclass(frozen=True)
class RunningRig:
    """A rig that is up.

    Attributes:
        config: its rig file.
        process: the supervisor, ``ragrig up``.
    """

    folder: Path
    config: Path
    process: subprocess.Popen[bytes]

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def state(self) -> dict[str, Any]:
        """What the supervisor says about its processes, as of now."""
        found: dict[str, Any] = json.loads((self.data_dir / "run" / "state.json").read_text())
        return found

    @property
    def url(self) -> str:
        return f"http://{self.state['coordinator']}"

    def node(self, name: str) -> dict[str, Any]:
        """Name, kind, address and pid of one process of the rig."""
        return next(n for n in self.state["nodes"] if n["name"] == name)

    def pids(self) -> list[int]:
        """Every process of the rig."""
        return [p.pid for p in psutil.Process(self.process.pid).children(recursive=True)]

    def client(self, timeout_s: float = 60.0) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

    def command(
        self, *arguments: str, timeout_s: float = 180.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a ``ragrig`` command against this rig, in its folder."""
        return subprocess.run(
            [str(RAGRIG), *arguments],
            cwd=self.folder, capture_output=True, text=True, timeout=timeout_s, check=False,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        )  # fmt: skip

    def logs(self) -> str:
        """The end of every log, for a test's failure message."""
        paths = [self.folder / "up.log", *sorted((self.data_dir / "run" / "logs").glob("*.log"))]
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in paths
        )


def start_rig(folder: Path, rig: dict[str, Any], *more: str) -> RunningRig:
    """``ragrig up`` with these options too; returns at once."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "rig.yaml"
    config.write_text(yaml.safe_dump({"data_dir": "data", **rig}))
    with (folder / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [str(RAGRIG), "up", "-c", str(config), *more],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return RunningRig(folder, config, process)


@contextmanager
def running_rig(folder: Path, rig: dict[str, Any], *more: str) -> Iterator[RunningRig]:
    """Starts a rig, stops it with Ctrl-C, leaves no process behind."""
    running = start_rig(folder, rig, *more)
    try:
        wait_answers(running, "/readyz")
        yield running
        assert running.process.poll() is None, running.logs()
    finally:
        leftovers = stop_rig(running)
    assert leftovers == [], f"left behind: {leftovers}"
    assert running.process.returncode == 0, running.logs()


def wait_answers(rig: RunningRig, path: str) -> None:
    """Waits until the coordinator answers 200 there."""

    def ready() -> bool:
        assert rig.process.poll() is None, rig.logs()
        try:
            return httpx.get(f"{rig.url}{path}", timeout=5, trust_env=False).status_code == 200
        except (OSError, ValueError, httpx.TransportError):
            return False

    wait_for(ready, START_S, rig.logs)


def stop_rig(rig: RunningRig) -> list[str]:
    """Ctrl-C; returns what was still there after it, which is then killed."""
    if rig.process.poll() is not None:
        return []
    family = psutil.Process(rig.process.pid).children(recursive=True)
    rig.process.send_signal(signal.SIGINT)
    try:
        rig.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        rig.process.kill()
        rig.process.wait(STOP_S)
    _, alive = psutil.wait_procs(family, timeout=5)
    names = [" ".join(p.cmdline()[:6]) for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    return names


def wait_for(
    condition: Callable[[], bool],
    timeout_s: float = 60.0,
    why: Callable[[], str] = lambda: "it never happened",
) -> None:
    """Polls; fails with ``why`` when the condition never holds."""
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, why()
        time.sleep(0.05)


def finish_job(
    client: httpx.Client, job: dict[str, Any], timeout_s: float = 120.0
) -> dict[str, Any]:
    """Waits until a background job has ended; returns its last state."""
    give_up_s = time.monotonic() + timeout_s
    while job["state"] not in ("done", "failed", "cancelled"):
        assert time.monotonic() < give_up_s, job
        time.sleep(0.1)
        job = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    return job


def create_collection(rig: RunningRig, name: str, documents: list[dict[str, Any]]) -> None:
    """Creates, uploads, and waits until it is searchable."""
    with rig.client() as client:
        client.post("/v1/collections", json={"name": name}).raise_for_status()
        job = client.post(f"/v1/collections/{name}/documents", json={"documents": documents})
        ended = finish_job(client, job.raise_for_status().json())
        assert ended["state"] == "done", ended
