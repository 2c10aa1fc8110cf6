"""One life of one node: a process, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragschema.errors import InvalidInput

_POLL_S = 0.05


@dataclass(frozen=True)
class Announcement:
    """What a node wrote into its ready file."""

    address: str
    pid: int


class Child:
    """A running process in a session of its own, so that Ctrl-C reaches only us.

    It is spawned by the thread that calls ``start``, which must be the main
    thread: the kernel sends the parent-death signal when that *thread* ends.
    """

    def __init__(self, process: subprocess.Popen[bytes], ready_file: Path) -> None:
        self._process = process
        self._ready_file = ready_file

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        env: Mapping[str, str],
        log_file: Path,
        ready_file: Path,
        cpus: Sequence[int] = (),
    ) -> Child:
        """Spawns the node.

        Args:
            cpus: processors that it stays on; empty: any.

        Raises:
            InvalidInput: the program cannot be executed, or there are no such processors.
        """
        ready_file.unlink(missing_ok=True)
        with log_file.open("ab") as log:
            try:
                process = subprocess.Popen(  # noqa: S603  argv comes from a checked rig
                    list(argv),
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise InvalidInput(f"cannot start {argv[0]}: {error.strerror}") from error
        child = cls(process, ready_file)
        child._stay_on(cpus)
        return child

    def _stay_on(self, cpus: Sequence[int]) -> None:
        """Right after the start it has one thread, and the others inherit from that."""
        if not cpus:
            return
        try:
            os.sched_setaffinity(self.pid, cpus)
        except ProcessLookupError:
            pass  # it has ended already, which is noticed where its exit code is read
        except OSError as error:
            self._process.kill()
            self._process.wait()
            raise InvalidInput(
                f"cannot stay on the processors {', '.join(map(str, cpus))}: {error.strerror}",
                field="cpus",
                hint=f"this process may use {sorted(os.sched_getaffinity(0))}",
            ) from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """Negative: the signal that ended it. None while it runs."""
        return self._process.poll()

    def announcement(self) -> Announcement | None:
        """The ready file's content, once this very process has written it."""
        try:
            raw = json.loads(self._ready_file.read_text(encoding="utf-8"))
            found = Announcement(address=str(raw["address"]), pid=int(raw["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if found.pid == self.pid else None

    async def ready_or_end(self, timeout_s: float) -> Announcement | None:
        """The announcement; None when the process ended or the time passed before."""
        give_up_s = time.monotonic() + timeout_s
        while self.exit_code() is None and time.monotonic() < give_up_s:
            if (found := self.announcement()) is not None:
                return found
            await asyncio.sleep(_POLL_S)
        return None

    async def end(self) -> int:
        """Waits for the process to end; the exit code."""
        # Polled: any event for it would need a thread per process or be Linux's alone.
        while (code := self.exit_code()) is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        return code

    async def stop(self, grace_s: float) -> int:
        """SIGTERM, up to ``grace_s`` to finish, then SIGKILL; the exit code."""
        if self.exit_code() is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.end(), grace_s)
        self.kill_group()
        return await self.end()

    def kill_group(self) -> None:
        """Ends the process and whatever it started and did not end itself."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
