"""/v1/jobs: background ingestions and their progress."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from coordinator.jobs.job import Job
from coordinator.rest.call import Call, Reply
from coordinator.rest.encode import JsonObject, to_json
from coordinator.rest.errors import error_object
from coordinator.rest.replies import JobReply, JobsReply
from coordinator.rest.route import add_operation
from coordinator.rest.schemas import JobsQuery

JobId = Annotated[str, Path(min_length=1, max_length=64)]


async def list_jobs(call: Call, which: Annotated[JobsQuery, Query()]) -> Reply:
    """List waiting, running and the latest finished jobs, newest first."""
    found = call.services.jobs.jobs(which.collection)
    return Reply(to_json({"jobs": [job_json(job) for job in found]}))


async def get_job(call: Call, job_id: JobId) -> Reply:
    """Tell a job's state and progress."""
    return job_reply(call.services.jobs.get(job_id))


async def cancel_job(call: Call, job_id: JobId) -> Reply:
    """End a job; the collection stays as it was. A finished job is left as it is."""
    return job_reply(await call.services.jobs.cancel(job_id))


def job_reply(job: Job, status: int = 200) -> Reply:
    return Reply(to_json(job_json(job)), status=status)


def job_json(job: Job) -> JsonObject:
    return {
        "id": job.id,
        "collection": job.collection,
        "state": job.state.value,
        "phase": job.phase,
        "done": job.done,
        "total": job.total,
        "summary": job.summary,
        "error": error_object(job.error, job.id) if job.error else None,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def add(router: APIRouter) -> None:
    add_operation(router, "GET", "/v1/jobs", list_jobs, JobsReply, tag="jobs")
    add_operation(router, "GET", "/v1/jobs/{job_id}", get_job, JobReply, tag="jobs")
    add_operation(router, "DELETE", "/v1/jobs/{job_id}", cancel_job, JobReply, tag="jobs")
