"""The job queue, with stand-ins for the ingestion process."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coordinator.jobs.job import Job, JobState
from coordinator.jobs.runner import JobOptions, JobRunner
from coordinator.jobs.spool import Spool
from ragschema.errors import InvalidInput, NotFound, Overloaded, Unavailable
from tests.coordinator.rest.fake_runtime import ENDLESS_INGESTION, GOOD_INGESTION, program

FAILING = """
import json, sys
error = {"type": "invalid_input", "message": "no text", "field": "documents", "hint": "send some"}
print(json.dumps({"error": error}))
sys.exit(1)
"""
SKIPPING = """
import json, sys
print(json.dumps({"summary": {"added": 0, "skipped": [{"path": "a", "reason": "empty"}]}}))
sys.exit(1)
"""
NOISY = """
import json
print("a library says hello")
print("[1, 2]")
print(json.dumps({"phase": "embed", "done": 2, "total": 2}))
print(json.dumps({"summary": {"added": 2}}))
"""
DYING = "import os; os.kill(os.getpid(), 9)"


@asynccontextmanager
async def runner(
    tmp_path: Path, source: str, refreshed: list[str] | None = None, **options: int
) -> AsyncIterator[JobRunner]:
    seen = refreshed if refreshed is not None else []

    async def refresh(collection: str) -> None:
        seen.append(collection)

    jobs = JobRunner(
        JobOptions(program=program(source), **options), Spool(tmp_path / "spool"), refresh
    )
    await jobs.start()
    try:
        yield jobs
    finally:
        await jobs.stop()


def submit(jobs: JobRunner, collection: str = "docs", documents: int = 2) -> Job:
    folder = jobs.spool.folder()
    lines = folder / "documents.jsonl"
    lines.write_text("{}\n" * documents, encoding="utf-8")
    spec = json.dumps({"documents_file": str(lines)})
    return jobs.submit(collection, spec, folder)


async def until(jobs: JobRunner, job: Job, *states: JobState) -> Job:
    async with asyncio.timeout(30):
        while jobs.get(job.id).state not in states:
            await asyncio.sleep(0.01)
    return jobs.get(job.id)


async def test_a_job_is_done_only_after_the_collection_was_refreshed(tmp_path: Path) -> None:
    refreshed: list[str] = []
    async with runner(tmp_path, GOOD_INGESTION, refreshed) as jobs:
        submitted = submit(jobs)
        assert submitted.state is JobState.RUNNING
        job = await until(jobs, submitted, JobState.DONE)
        assert refreshed == ["docs"]
        assert job.summary == {"added": 2}
        assert job.started_at is not None
        assert job.finished_at is not None
        assert list((tmp_path / "spool").iterdir()) == []


async def test_a_typed_error_of_the_child_reaches_the_job(tmp_path: Path) -> None:
    refreshed: list[str] = []
    async with runner(tmp_path, FAILING, refreshed) as jobs:
        job = await until(jobs, submit(jobs), JobState.FAILED)
        assert isinstance(job.error, InvalidInput)
        assert job.error.message == "no text"
        assert job.error.hint == "send some"
        assert refreshed == []
        assert list((tmp_path / "spool").iterdir()) == []


async def test_a_failing_exit_code_keeps_the_summary(tmp_path: Path) -> None:
    async with runner(tmp_path, SKIPPING) as jobs:
        job = await until(jobs, submit(jobs), JobState.FAILED)
        assert job.error is not None
        assert job.summary is not None
        assert job.summary["skipped"][0]["reason"] == "empty"


async def test_lines_that_are_no_progress_are_passed_over(tmp_path: Path) -> None:
    async with runner(tmp_path, NOISY) as jobs:
        assert (await until(jobs, submit(jobs), JobState.DONE)).summary == {"added": 2}


async def test_a_child_that_dies_silently_fails_its_job(tmp_path: Path) -> None:
    async with runner(tmp_path, DYING) as jobs:
        job = await until(jobs, submit(jobs), JobState.FAILED)
        assert job.error is not None


async def test_a_failed_refresh_fails_the_job(tmp_path: Path) -> None:
    async def refresh(collection: str) -> None:
        raise Unavailable("no retrieval node answers")

    spool = Spool(tmp_path / "spool")
    jobs = JobRunner(JobOptions(program=program(GOOD_INGESTION)), spool, refresh)
    await jobs.start()
    job = await until(jobs, submit(jobs), JobState.FAILED)
    assert isinstance(job.error, Unavailable)
    await jobs.stop()


async def test_one_job_runs_per_collection_and_a_bounded_number_waits(tmp_path: Path) -> None:
    async with runner(tmp_path, ENDLESS_INGESTION, max_waiting=2, max_running=2) as jobs:
        first = submit(jobs, "docs")
        second = submit(jobs, "docs")
        other = submit(jobs, "other")
        third = submit(jobs, "third")
        states = [jobs.get(job.id).state.value for job in (first, second, other, third)]
        assert states == ["running", "waiting", "running", "waiting"]
        with pytest.raises(Overloaded) as caught:
            submit(jobs, "docs")
        assert caught.value.retry_after_s > 0
        assert jobs.active("third") is not None
        assert [job.id for job in jobs.jobs("docs")] == [second.id, first.id]
        await jobs.cancel(first.id)
        assert jobs.get(second.id).state is JobState.RUNNING


async def test_cancelling_ends_the_child_and_empties_its_folder(tmp_path: Path) -> None:
    async with runner(tmp_path, ENDLESS_INGESTION) as jobs:
        job = submit(jobs)
        async with asyncio.timeout(30):
            while jobs.get(job.id).phase != "embed":
                await asyncio.sleep(0.01)
        assert jobs.get(job.id).done == 1
        assert (await jobs.cancel(job.id)).state is JobState.CANCELLED
        assert list((tmp_path / "spool").iterdir()) == []
        assert (await jobs.cancel(job.id)).state is JobState.CANCELLED
        assert jobs.active("docs") is None


async def test_a_waiting_job_is_cancelled_before_it_starts(tmp_path: Path) -> None:
    async with runner(tmp_path, ENDLESS_INGESTION) as jobs:
        submit(jobs)
        waiting = submit(jobs)
        assert (await jobs.cancel(waiting.id)).state is JobState.CANCELLED
        assert jobs.get(waiting.id).started_at is None


async def test_only_the_latest_finished_jobs_are_remembered(tmp_path: Path) -> None:
    async with runner(tmp_path, GOOD_INGESTION, max_finished=2) as jobs:
        done = [await until(jobs, submit(jobs), JobState.DONE) for _ in range(3)]
        assert [job.id for job in jobs.jobs()] == [done[2].id, done[1].id]
        with pytest.raises(NotFound):
            jobs.get(done[0].id)


async def test_stopping_leaves_no_child_and_no_file(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    source = ENDLESS_INGESTION.replace(
        "import json, time",
        f"import json, os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid()))",
    )
    async with runner(tmp_path, source) as jobs:
        job = submit(jobs)
        async with asyncio.timeout(30):
            while jobs.get(job.id).phase != "embed":
                await asyncio.sleep(0.01)
        submit(jobs)
        pid = int(pid_file.read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list((tmp_path / "spool").iterdir()) == []
    assert {job.state for job in jobs.jobs()} == {JobState.CANCELLED}
