"""The parsing process: limits that hold, deaths that are reported, restarts."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.sandbox import ParseWorker, check_name, parse_upload
from ragschema.errors import InvalidInput, PayloadTooLarge, UnreadableDocument
from tests.coordinator.ingest.parsers.making import replace_entry, write_docx

LIMITS = ParseLimits(memory_bytes=512 << 20, cpu_s=20, wall_s=40.0)


def file(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


async def test_an_upload_is_parsed_in_another_process(tmp_path: Path) -> None:
    path = file(tmp_path, "upload", '{"id": "x", "text": "körper \\ud800"}\n{"text": "two"}')
    first, second = await parse_upload(path, "r.jsonl", LIMITS)
    assert (first.document_id, first.text) == ("x", "körper ?")
    assert second.document_id == "r.jsonl#2"


async def test_refusals_come_through_with_their_reason(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDocument, match="deep"):
        await parse_upload(file(tmp_path, "u", "<div>" * 1_000_000), "a.html", LIMITS)
    with pytest.raises(UnreadableDocument, match=r"\.exe") as caught:
        await parse_upload(file(tmp_path, "u", "x"), "a.exe", LIMITS)
    assert ".pdf" in str(caught.value.hint)
    bomb = write_docx(tmp_path / "bomb.docx")
    replace_entry(bomb, "word/media/x.bin", b"\0" * (40 << 20))
    with pytest.raises(PayloadTooLarge, match="times its size"):
        await parse_upload(bomb, "bomb.docx", LIMITS)


async def test_one_worker_takes_many_files(tmp_path: Path) -> None:
    path = file(tmp_path, "a.txt", "text")
    async with ParseWorker(LIMITS) as worker:
        await worker.parse(path, "a.txt")
        process = worker._process
        with pytest.raises(UnreadableDocument):
            await worker.parse(file(tmp_path, "b.txt", b"\0"), "b.txt")
        await worker.parse(path, "a.txt")
        assert worker._process is process
        assert process is not None
    assert process.returncode is not None


async def test_memory_is_bounded(tmp_path: Path) -> None:
    path = file(tmp_path, "a.json", "[" + "[]," * 12_000_000 + "[]]")
    tight = replace(LIMITS, memory_bytes=256 << 20)
    async with ParseWorker(tight) as worker:
        with pytest.raises(PayloadTooLarge, match="256 MB"):
            await worker.parse(path, "a.json")
        assert (await worker.parse(file(tmp_path, "b.txt", "fine"), "b.txt"))[0].text == "fine"


async def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    slow = replace(LIMITS, wall_s=0.05)
    async with ParseWorker(slow) as worker:
        # Starting Python alone takes longer than that.
        with pytest.raises(UnreadableDocument, match=r"0\.05 s"):
            await worker.parse(file(tmp_path, "a.txt", "text"), "a.txt")
        assert worker._process is None


async def test_processor_time_is_bounded_per_file(tmp_path: Path) -> None:
    path = file(tmp_path, "a.json", "[" + "0," * 25_000_000 + "0]")
    async with ParseWorker(replace(LIMITS, cpu_s=1, memory_bytes=4 << 30)) as worker:
        with pytest.raises((UnreadableDocument, PayloadTooLarge)):
            await worker.parse(path, "a.json")
        assert (await worker.parse(file(tmp_path, "b.txt", "fine"), "b.txt"))[0].text == "fine"


async def test_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    path = file(tmp_path, "a.txt", "text")
    async with ParseWorker(LIMITS) as worker:
        await worker.parse(path, "a.txt")
        assert worker._process is not None
        worker._process.kill()
        await worker._process.wait()
        assert (await worker.parse(path, "a.txt"))[0].text == "text"


async def test_leaving_early_ends_the_process(tmp_path: Path) -> None:
    path = file(tmp_path, "a.txt", "text")
    worker = ParseWorker(LIMITS)
    async with worker:
        await worker.parse(path, "a.txt")
        process = worker._process
        assert process is not None
        running = asyncio.create_task(
            worker.parse(file(tmp_path, "a.json", "[" + "0," * 5_000_000 + "0]"), "a.json")
        )
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize(
    "name", ["", "../a.txt", "a/../../b.txt", "/etc/passwd.txt", "a\0.txt", "a\\b.txt", "x" * 600]
)
def test_names_that_point_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_name(name)
    assert caught.value.field == "filename"


async def test_the_name_is_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        await parse_upload(tmp_path / "nothing", "../x.txt", LIMITS)
    assert check_name("folder/report.pdf") == "folder/report.pdf"
