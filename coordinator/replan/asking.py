"""Asks for a proposal in a process of its own, within a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from coordinator.replan.proposal import Ask, Proposal
from coordinator.supervisor.environment import child_environment
from ragschema.errors import DeadlineExceeded, InternalError, UpstreamError

_LOG_TAIL = 2000


async def ask_planner(ask: Ask, limit_s: float, program: tuple[str, ...] | None = None) -> Proposal:
    """Cancelling it, and the limit, end the process.

    Args:
        program: what to run instead, for tests.

    Raises:
        DeadlineExceeded: the limit passed.
        UpstreamError: what the planner said is wrong.
        InternalError: it died, or wrote nothing that can be read.
    """
    argv = program or (sys.executable, "-m", "coordinator.replan", str(os.getpid()))
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(1),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limit_s):
            out, errors = await child.communicate(json.dumps(asdict(ask)).encode())
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"planning took more than {limit_s:g} s", hint="it is tried again later"
        ) from error
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    return _read(out, errors)


def _read(out: bytes, errors: bytes) -> Proposal:
    said = errors.decode(errors="replace")[-_LOG_TAIL:]
    try:
        answer: Any = json.loads(out)
        if "proposal" in answer:
            return TypeAdapter(Proposal).validate_python(answer["proposal"])
        raise UpstreamError(f"the planner: {answer['error']}")
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(
            f"the planner ended without a proposal; it said last:\n{said}"
        ) from error
