"""``python -m coordinator.ingest run``: lines, exit codes, signals, a full disk, two at once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.ingest.spec import IngestSpec, spec_to_json, summary_from_dict
from ragschema.errors import NotFound
from tests.coordinator.ingest.conftest import Bench
from tests.fakes import HashingLlm, eventually

KILLS = 20
RUN = ("-m", "coordinator.ingest", "run")
WITH_SMALL_FILES = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
    "from coordinator.ingest.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


async def start(spec: IngestSpec, path: Path, *how: str) -> asyncio.subprocess.Process:
    path.write_text(spec_to_json(spec))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *(how or RUN),
        str(path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int, list[dict[str, Any]]]:
    out, err = await process.communicate()
    assert b"Traceback" not in err
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()]


async def run(spec: IngestSpec, path: Path, *how: str) -> tuple[int, list[dict[str, Any]]]:
    return await finish(await start(spec, path, *how))


async def test_progress_then_a_summary(bench: Bench, tmp_path: Path) -> None:
    bench.write("a.md", "# A\n\ntext")
    bench.write("empty.md", "")
    code, lines = await run(bench.spec(), tmp_path / "s.json")
    assert code == 0
    *progress, last = lines
    assert all(set(line) == {"phase", "done", "total"} for line in progress)
    assert progress[0]["phase"] == "read"
    assert progress[-1]["done"] == progress[-1]["total"]
    summary = summary_from_dict(last["summary"])
    assert (summary.added, summary.generation) == (1, 1)
    assert summary.skipped[0].path == str(bench.docs / "empty.md")


async def test_exit_codes(bench: Bench, tmp_path: Path) -> None:
    spec_file = tmp_path / "s.json"
    bench.write("empty.md", "")
    code, lines = await run(bench.spec(), spec_file)
    assert code == 1
    assert lines[-1]["summary"]["skipped"][0]["reason"] == "is empty"
    bench.write("a.md", "text")
    assert (await run(bench.spec(strict=True), spec_file))[0] == 1
    assert bench.document_ids() == ["docs/a.md"]
    (bench.docs / "empty.md").unlink()
    assert (await run(bench.spec(strict=True), spec_file))[0] == 0


@pytest.mark.parametrize(
    ("change", "kind", "field"),
    [
        ({"llm_address": "127.0.0.1:1"}, "unavailable", "llm_address"),
        ({"collection": "../up"}, "invalid_input", "collection"),
        ({"m": 7}, "invalid_input", "m"),
        ({"data_dir": "/proc/no/such"}, "invalid_input", "data_dir"),
    ],
)
async def test_errors_are_lines_too(
    bench: Bench, tmp_path: Path, change: dict[str, Any], kind: str, field: str
) -> None:
    bench.write("a.md", "text")
    code, lines = await run(bench.spec(**change), tmp_path / "s.json")
    assert code == 1
    error = lines[-1]["error"]
    assert (error["type"], error["field"]) == (kind, field)
    assert error["hint"]


async def test_a_missing_spec(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *RUN, str(tmp_path / "none.json")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    code, lines = await finish(process)
    assert (code, lines[-1]["error"]["type"]) == (1, "not_found")


async def test_sigterm_stops_cleanly(bench: Bench, tmp_path: Path) -> None:
    bench.write("a.txt", "word " * 3000)
    process = await start(bench.spec(), tmp_path / "s.json")
    assert process.stdout is not None
    seen = b""
    while b"embed" not in seen:
        seen = await process.stdout.readline()
        assert seen
    process.send_signal(signal.SIGTERM)
    code, lines = await finish(process)
    assert code == 1
    assert lines[-1]["error"]["type"] == "cancelled"
    with pytest.raises(NotFound):
        bench.open()
    assert (await bench.ingest()).added == 1


async def test_a_full_disk_is_explained_and_loses_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.write("a.txt", "small")
    await bench.ingest()
    for number in range(20):
        bench.write(f"b{number}.txt", " ".join(f"word{i}" for i in range(2000)))
    code, lines = await run(bench.spec(), tmp_path / "s.json", "-c", WITH_SMALL_FILES, "run")
    assert code == 1
    error = lines[-1]["error"]
    assert error["type"] == "unavailable"
    assert "nothing was lost" in error["hint"]
    assert bench.texts() == ["small"]
    assert (await bench.ingest()).added == 20


async def test_a_second_ingestion_in_another_process_is_refused(
    bench: Bench, tmp_path: Path
) -> None:
    bench.write("a.txt", "text")
    with bench.store.lock("c"):
        code, lines = await run(bench.spec(), tmp_path / "s.json")
    assert code == 1
    assert lines[-1]["error"]["type"] == "conflict"
    assert str(os.getpid()) in lines[-1]["error"]["message"]


def write_version(bench: Bench, version: int) -> list[str]:
    """Documents of a version, and the texts a search may then find.

    Enough chunks for an index; enough change for it to be trained anew.
    """
    texts = []
    for number in range(40):
        word = f"version {version}" if number % 5 < 2 else "fixed"
        found = [f"file {number}, record {i} of topic {i % 11}, {word}" for i in range(27)]
        lines = (json.dumps({"id": i, "text": text}) for i, text in enumerate(found))
        bench.write(f"{number:02d}.jsonl", "\n".join(lines))
        texts.extend(found)
    return sorted(texts)


async def test_sigkill_at_twenty_random_moments(
    bench: Bench, llm: HashingLlm, tmp_path: Path
) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    spec, spec_file = bench.spec(), tmp_path / "s.json"

    committed = write_version(bench, 0)
    await run(spec, spec_file)
    assert bench.texts() == committed
    target = write_version(bench, 1)
    began_s = loop.time()
    assert (await run(spec, spec_file))[0] == 0
    whole_s = loop.time() - began_s
    committed = target

    kills = finished = 0
    for version in range(2, 2 + KILLS):
        target = write_version(bench, version)
        process = await start(spec, spec_file)
        drain = asyncio.create_task(process.communicate())
        await asyncio.wait([drain], timeout=rng.uniform(0.05, 1.1) * whole_s)
        if process.returncode is None:
            process.kill()
            kills += 1
        await drain
        found = bench.texts()  # opening verifies every file
        assert found in (committed, target), (seed, version)
        finished += found == target
        committed = found
    print("killed", kills, "committed", finished)
    assert kills >= KILLS // 2

    llm.embedded = 0
    code, lines = await run(spec, spec_file)
    assert code == 0
    assert bench.texts() == target
    assert lines[-1]["summary"]["index"] == "ivfpq"
    directory = bench.store.directory("c")
    assert not (directory / "staging").exists()
    # The current generation, the one before it, and nothing crashes left.
    assert len(list((directory / "segments").iterdir())) <= 3

    def orphans() -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = entry.read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if str(bench.data_dir) in command:
                found.append(command)
        return found

    await eventually(lambda: not orphans())
