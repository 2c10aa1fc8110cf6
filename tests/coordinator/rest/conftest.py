"""An application over the fake runtime, asked in process or over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from coordinator.auth import ApiKey
from coordinator.jobs.runner import JobOptions, JobRunner
from coordinator.rest.app import create_app
from ragschema.rig import LimitsConfig
from tests.coordinator.rest.fake_runtime import (
    GOOD_INGESTION,
    FakeRuntime,
    make_jobs,
    program,
)


@dataclass
class Rig:
    """A whole edge and the client to ask it with."""

    runtime: FakeRuntime
    jobs: JobRunner
    app: FastAPI
    client: httpx.AsyncClient

    async def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return await self.client.post(path, json=body, **options)

    async def finished_job(self, job_id: str) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while True:
                job: dict[str, Any] = (await self.client.get(f"/v1/jobs/{job_id}")).json()
                if job["state"] in ("done", "failed", "cancelled"):
                    return job
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def open_rig(
    data_dir: Path,
    limits: LimitsConfig | None = None,
    key: str | None = None,
    options: JobOptions | None = None,
) -> AsyncIterator[Rig]:
    runtime = FakeRuntime(data_dir, limits or LimitsConfig())
    await runtime.add_collection("docs")
    jobs = make_jobs(runtime, options or JobOptions(program=program(GOOD_INGESTION)))
    await jobs.start()
    api_key = ApiKey.of(key.encode()) if key else None
    app = create_app(runtime, jobs, api_key)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://rig") as client:
        yield Rig(runtime, jobs, app, client)
    await jobs.stop()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as opened:
        yield opened


class QuietServer(uvicorn.Server):
    """Leaves signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serves on a free port; yields the base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http="httptools", lifespan="off", log_config=None, access_log=False, ws="none"
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
