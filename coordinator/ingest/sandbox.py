"""Parses untrusted files in a child process with limits on memory, time and output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from types import TracebackType

from coordinator.ingest.document import ParsedDocument, documents_from_json
from coordinator.ingest.faults import error_from_dict
from coordinator.ingest.limits import ParseLimits
from ragschema.errors import InvalidInput, PayloadTooLarge, RagrigError, UnreadableDocument

_MAX_NAME_CHARS = 512


async def parse_upload(
    path: Path, filename: str, limits: ParseLimits
) -> tuple[ParsedDocument, ...]:
    """Parses one uploaded file in a process of its own.

    Args:
        path: where the upload was stored.
        filename: its name; the extension chooses the parser, documents bear the name.

    Raises:
        InvalidInput: the name is no plain relative path.
        UnreadableDocument: the file's type or content, with the reason.
        PayloadTooLarge: the file, its text or the cost of reading it.
    """
    check_name(filename)
    async with ParseWorker(limits) as worker:
        return await worker.parse(path, filename)


def check_name(name: str) -> str:
    """Returns the name; raises InvalidInput when it could point outside its folder."""
    path = PurePosixPath(name)
    odd = any(ord(c) < 32 or c in "\\\x7f" for c in name)
    if odd or not name or path.is_absolute() or ".." in path.parts or len(name) > _MAX_NAME_CHARS:
        raise InvalidInput(
            f"{name[:100]!r} is not a file name",
            field="filename",
            hint="send a plain name such as report.pdf, without '..' or a leading '/'",
        )
    return name


def _request(path: Path, name: str, result: Path) -> bytes:
    body = {"path": str(path.absolute()), "name": name, "result": str(result)}
    return json.dumps(body).encode("ascii") + b"\n"


class ParseWorker:
    """A parsing process that takes one file after another.

    It is started when first needed and replaced when a file kills it, so that
    thousands of small files share one start and one bad file costs one restart.
    """

    def __init__(self, limits: ParseLimits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def __aenter__(self) -> ParseWorker:
        self._folder = tempfile.TemporaryDirectory(prefix="ragrig-parse-")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    async def parse(self, path: Path, name: str) -> tuple[ParsedDocument, ...]:
        """Parses a file; see ``parse_upload`` for what it raises."""
        assert self._folder is not None, "use it as a context manager"
        result = Path(self._folder.name) / "result.json"
        try:
            answer = await self._ask(_request(path, name, result))
            if "error" in answer:
                raise error_from_dict(answer["error"])
            return documents_from_json(result.read_bytes())
        except BaseException as error:
            # Whatever went wrong inside may still be going on; only a plain
            # refusal leaves the process fit for the next file.
            if not isinstance(error, RagrigError) or self._process_ended():
                await self._stop()
            raise
        finally:
            result.unlink(missing_ok=True)

    def _process_ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    async def _ask(self, request: bytes) -> dict[str, object]:
        if self._process_ended():
            self._process = await self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            await process.stdin.drain()
            line = await asyncio.wait_for(process.stdout.readline(), self._limits.wall_s)
        except TimeoutError as error:
            await self._stop()
            raise UnreadableDocument(
                f"took more than {self._limits.wall_s:g} s to read", hint="split it"
            ) from error
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line.endswith(b"\n"):
            raise self._death(await process.wait())
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "coordinator.ingest", "parse")
        limits = json.dumps(asdict(self._limits))
        return await asyncio.create_subprocess_exec(
            *(*command, "--limits", limits, "--parent-pid", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    def _death(self, code: int) -> RagrigError:
        if code == -signal.SIGXCPU:
            return UnreadableDocument(
                f"took more than {self._limits.cpu_s} s of processor time to read", hint="split it"
            )
        if code == -signal.SIGXFSZ:
            return PayloadTooLarge("holds more text than allowed", hint="split it")
        return UnreadableDocument(f"ended its parser (exit code {code})")

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
