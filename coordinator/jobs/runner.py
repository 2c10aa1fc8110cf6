"""Runs background ingestions: few at once, one per collection, none forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from coordinator.jobs.job import Job, JobState, utc_now
from coordinator.jobs.spool import Spool
from coordinator.supervisor.ingestion import IngestionEnd, Progress, run_ingestion
from ragschema.errors import InternalError, NotFound, Overloaded, RagrigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobOptions:
    """Bounds of the runner.

    Attributes:
        max_waiting: jobs beyond which a new one gets 429.
        max_running: ingestions at once, over all collections.
        max_finished: finished jobs that are remembered.
        threads: of index training, per job.
        program: what runs a spec file; None: the ingestion, tied to this process.
    """

    max_waiting: int = 16
    max_running: int = 2
    max_finished: int = 200
    threads: int = 1
    program: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Waiting:
    """A job that has not started.

    Attributes:
        folder: of the spool, removed when the job ends.
    """

    job_id: str
    spec_json: str
    folder: Path


class JobRunner:
    """The queue, the running ingestions and the latest finished ones.

    Args:
        refresh: makes what was committed to a collection searchable; a job is
            done only after it.
    """

    def __init__(
        self, options: JobOptions, spool: Spool, refresh: Callable[[str], Awaitable[None]]
    ) -> None:
        self.spool = spool
        self._options = options
        self._refresh = refresh
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Waiting] = deque()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._program = options.program or (
            *(sys.executable, "-m", "coordinator.ingest", "run"),
            *("--parent-pid", str(os.getpid())),
        )

    async def start(self) -> None:
        await asyncio.to_thread(self.spool.open)

    def check_room(self) -> None:
        """Raises Overloaded when no further job may wait."""
        if len(self._waiting) >= self._options.max_waiting:
            raise Overloaded(
                f"{len(self._waiting)} ingestion jobs are waiting",
                retry_after_s=5.0,
                hint="try again when some are done: GET /v1/jobs",
            )

    def submit(self, collection: str, spec_json: str, folder: Path) -> Job:
        """Queues an ingestion and takes over its spool folder.

        Raises:
            Overloaded: too many jobs wait; the folder stays the caller's.
        """
        self.check_room()
        job = Job(id=secrets.token_hex(8), collection=collection, created_at=utc_now())
        self._jobs[job.id] = job
        self._waiting.append(Waiting(job.id, spec_json, folder))
        self._start_what_may()
        return self._jobs[job.id]

    def get(self, job_id: str) -> Job:
        """Raises NotFound for an unknown or forgotten job."""
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(
                f"there is no job {job_id!r}",
                field="job_id",
                hint=f"the last {self._options.max_finished} finished jobs are kept: GET /v1/jobs",
            )
        return job

    def jobs(self, collection: str | None = None) -> tuple[Job, ...]:
        """Newest first."""
        found = reversed(self._jobs.values())
        return tuple(job for job in found if collection in (None, job.collection))

    def active(self, collection: str) -> Job | None:
        """A waiting or running job of the collection, if there is one."""
        for job in self._jobs.values():
            if job.collection == collection and not job.state.is_final:
                return job
        return None

    async def cancel(self, job_id: str) -> Job:
        """Ends a job; one that is over already stays as it is.

        Returns when the child process is gone and the collection is as it was.
        """
        self.get(job_id)
        for entry in self._waiting:
            if entry.job_id == job_id:
                self._waiting.remove(entry)
                self._finish(entry, state=JobState.CANCELLED)
                return self.get(job_id)
        task = self._tasks.get(job_id)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        return self.get(job_id)

    async def stop(self) -> None:
        """Ends every job and empties the spool."""
        while self._waiting:
            self._finish(self._waiting.popleft(), state=JobState.CANCELLED)
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.to_thread(self.spool.close)

    def _start_what_may(self) -> None:
        for entry in tuple(self._waiting):
            if len(self._tasks) >= self._options.max_running:
                return
            collection = self._jobs[entry.job_id].collection
            if any(self._jobs[running].collection == collection for running in self._tasks):
                continue
            self._waiting.remove(entry)
            self._update(entry.job_id, state=JobState.RUNNING, started_at=utc_now())
            task = asyncio.get_running_loop().create_task(self._run(entry))
            self._tasks[entry.job_id] = task
            task.add_done_callback(partial(self._ended, entry))

    def _ended(self, entry: Waiting, _task: asyncio.Task[None]) -> None:
        del self._tasks[entry.job_id]
        if not self._jobs[entry.job_id].state.is_final:
            # Cancelled before its first step, so that nothing in it could tell.
            self._finish(entry, state=JobState.CANCELLED)
        self._start_what_may()

    async def _run(self, entry: Waiting) -> None:
        try:
            end = await run_ingestion(
                entry.spec_json,
                self._options.threads,
                lambda progress: self._progress(entry.job_id, progress),
                self._program,
            )
            await self._settle(entry, end)
        except asyncio.CancelledError:
            self._finish(entry, state=JobState.CANCELLED)
        except RagrigError as error:
            log.warning("job %s failed: %s", entry.job_id, error)
            self._finish(entry, state=JobState.FAILED, error=error)
        except Exception as error:
            log.exception("defect in job %s", entry.job_id)
            hidden = InternalError("the ingestion failed", hint="the server's log has the details")
            hidden.__cause__ = error
            self._finish(entry, state=JobState.FAILED, error=hidden)

    async def _settle(self, entry: Waiting, end: IngestionEnd) -> None:
        self._update(entry.job_id, phase="refresh", done=0, total=1, summary=end.summary)
        await self._refresh(self._jobs[entry.job_id].collection)
        if end.exit_code != 0:
            raise InternalError(
                f"the ingestion ended with code {end.exit_code}",
                hint="its summary names what could not be read",
            )
        self._finish(entry, state=JobState.DONE, done=1)

    def _progress(self, job_id: str, progress: Progress) -> None:
        done, total = max(0, progress.done), max(0, progress.total)
        self._update(job_id, phase=progress.phase[:64], done=done, total=total)

    def _finish(self, entry: Waiting, **changes: Any) -> None:
        self._update(entry.job_id, finished_at=utc_now(), **changes)
        self.spool.discard(entry.folder)
        finished = [job.id for job in self._jobs.values() if job.state.is_final]
        for job_id in finished[: max(0, len(finished) - self._options.max_finished)]:
            del self._jobs[job_id]

    def _update(self, job_id: str, **changes: Any) -> None:
        with contextlib.suppress(KeyError):
            self._jobs[job_id] = replace(self._jobs[job_id], **changes)
