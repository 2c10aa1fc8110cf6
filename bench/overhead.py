"""What does the appliance add to a search?

``added_ms_p50``: p50 latency of sequential ``POST /v1/search`` by vector over
HTTP keep-alive, minus p50 of the same searches inside one process: same
collection, same backend, same settings, probing included.

``rps_ratio``: requests per second of ``/v1/search`` by vector at 32 keep-alive
connections over those of an empty FastAPI route of the same server, which lies
behind the same admission, trace ids and metrics as every other route. Both run
in turn; the ratio is the median over the rounds. ``rps_ratio_bare`` is the same
against an application that has an empty route and nothing else: what all of the
coordinator costs.

The load comes from ``bench.loadgen`` in a process of its own; ``loadgen_rps``
is what that generator can do against a server that does nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil

from bench.appliance import Bench, run_bench
from bench.common import emit, machine, note, options, percentile, typed_failures
from bench.demo_quality import embed, load_questions, sample_sentences
from bench.overhead_server import EDGE_PATH, EMPTY_PATH
from coordinator.cli.serving import wait_served
from coordinator.cli.target import Target
from coordinator.demo.run import COLLECTION
from coordinator.nodes.clients import LlmClient
from coordinator.supervisor.commands import Programs
from ragschema.errors import UpstreamError
from ragschema.types import F32, EmbedPurpose
from retrieval_node.local import LocalSearcher

_SEARCH = "/v1/search"
_K = 10
_SENTENCES = 175
_BATCHES = re.compile(
    r'^ragrig_batch_requests_(sum|count)\{stage="retrieve"\} (\S+)$', re.MULTILINE
)


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        rounds: times that each of the compared things runs.
        seconds: of one round under load.
        sequential: searches of one sequential round.
    """

    rounds: int
    seconds: float
    sequential: int
    connections: int


@dataclass(frozen=True)
class Loader:
    """Runs ``bench.loadgen`` against one server."""

    address: str
    bodies: Path

    async def run(self, path: str, connections: int, *limits: str) -> dict[str, Any]:
        """One load; a reply other than 200 fails the benchmark."""
        kind = ["--method", "POST", "--bodies", str(self.bodies)] if path == _SEARCH else []
        target = ["--address", self.address, "--path", path, "--connections", str(connections)]
        result = await loadgen(*target, *kind, *limits)
        if result["failures"]:
            raise UpstreamError(f"{path} answered {result['failures']} under load")
        return result


async def loadgen(*arguments: str) -> dict[str, Any]:
    """The generator's JSON line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.loadgen", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise UpstreamError(f"the load generator ended with code {process.returncode}")
    result: dict[str, Any] = json.loads(out)
    return result


async def query_vectors(bench: Bench) -> F32:
    """Questions and sentences of the corpus, embedded: float32 [n, dim]."""
    snapshot = bench.snapshot()
    client = LlmClient("bench", bench.llm_address)
    try:
        chunks = [c for c in snapshot.chunks(range(snapshot.manifest.next_row_id)) if c]
        texts = [q.text for q in load_questions()] + sample_sentences(chunks, _SENTENCES)
        return await embed(client, texts, EmbedPurpose.QUERY)
    finally:
        await client.close()
        snapshot.close()


def write_bodies(path: Path, vectors: F32) -> None:
    """Search bodies, one line each, numbers as short as float32 allows."""
    with path.open("wb") as out:
        for vector in vectors:
            body = {"collection": COLLECTION, "k": _K, "vector": vector}
            out.write(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def search_inside(searcher: LocalSearcher, vectors: F32, count: int) -> list[float]:
    """Milliseconds of each search in this process."""
    times = []
    for number in range(count):
        started_s = time.perf_counter()
        at = number % len(vectors)
        searcher.search(searcher.batch(vectors[at : at + 1], _K))
        times.append((time.perf_counter() - started_s) * 1e3)
    return times


async def latency(bench: Bench, loader: Loader, vectors: F32, plan: Plan) -> dict[str, Any]:
    """Sequential searches, inside and over HTTP in turn."""
    searcher = LocalSearcher(bench.directory, "fpga")
    count = ("--count", str(plan.sequential))
    inside: list[float] = []
    http: list[dict[str, Any]] = []
    try:
        await asyncio.to_thread(search_inside, searcher, vectors, 20)  # compiles and warms
        await loader.run(_SEARCH, 1, "--count", "50")
        for number in range(plan.rounds):
            note(f"sequential searches, round {number + 1} of {plan.rounds}")
            inside += await asyncio.to_thread(search_inside, searcher, vectors, plan.sequential)
            http.append(await loader.run(_SEARCH, 1, *count))
    finally:
        searcher.close()
    p50_http = median(http, "p50_ms")
    p50_inside = percentile(inside, 0.5)
    return {
        "added_ms_p50": round(p50_http - p50_inside, 3),
        "search_http_ms_p50": round(p50_http, 3),
        "search_http_ms_p99": round(median(http, "p99_ms"), 3),
        "search_inside_ms_p50": round(p50_inside, 3),
        "search_inside_ms_p99": round(percentile(inside, 0.99), 3),
    }


class CpuMeter:
    """Processor time of the rig's processes, which a busy machine does not distort."""

    def __init__(self, bench: Bench) -> None:
        views = bench.supervisor.views()
        self._processes = {v.name: psutil.Process(v.pid) for v in views if v.pid is not None}
        self._used_s: dict[str, dict[str, float]] = {}
        self._requests: dict[str, int] = {}

    async def during(self, path: str, load: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        """Runs one load and books what it used."""
        before = self._read()
        result = await load
        used = self._used_s.setdefault(path, dict.fromkeys(before, 0.0))
        for name, seconds in self._read().items():
            used[name] += seconds - before[name]
        self._requests[path] = self._requests.get(path, 0) + int(result["requests"])
        return result

    def us_per_request(self, path: str) -> dict[str, int]:
        """Microseconds of each process per request of that path."""
        return {
            name: round(seconds * 1e6 / self._requests[path])
            for name, seconds in self._used_s[path].items()
        }

    def _read(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: t.user + t.system for name, t in times.items()}


async def throughput(bench: Bench, loader: Loader, plan: Plan) -> dict[str, Any]:
    """Search and the empty routes in turn, at many connections."""
    meter = CpuMeter(bench)
    paths = (_SEARCH, EMPTY_PATH, EDGE_PATH)
    seen: dict[str, list[dict[str, Any]]] = {path: [] for path in paths}
    limits = ("--seconds", str(plan.seconds))
    before = batches(await metrics_text(loader.address))
    for number in range(plan.rounds):
        note(f"load at {plan.connections} connections, round {number + 1} of {plan.rounds}")
        for path in paths:
            load = loader.run(path, plan.connections, *limits)
            seen[path].append(await meter.during(path, load))
    after = batches(await metrics_text(loader.address))
    calls = after[1] - before[1]
    return {
        "rps_ratio": paired_ratio(seen[_SEARCH], seen[EDGE_PATH]),
        "rps_ratio_bare": paired_ratio(seen[_SEARCH], seen[EMPTY_PATH]),
        "search_rps": median(seen[_SEARCH], "rps"),
        "empty_rps": median(seen[EDGE_PATH], "rps"),
        "empty_bare_rps": median(seen[EMPTY_PATH], "rps"),
        "search_loaded_ms_p50": median(seen[_SEARCH], "p50_ms"),
        "search_loaded_ms_p99": median(seen[_SEARCH], "p99_ms"),
        "mean_batch": round((after[0] - before[0]) / calls, 2) if calls else None,
        "search_cpu_us": meter.us_per_request(_SEARCH),
        "empty_cpu_us": meter.us_per_request(EDGE_PATH),
        "empty_bare_cpu_us": meter.us_per_request(EMPTY_PATH),
        "rounds_search_rps": [r["rps"] for r in seen[_SEARCH]],
        "rounds_empty_rps": [r["rps"] for r in seen[EDGE_PATH]],
        "rounds_empty_bare_rps": [r["rps"] for r in seen[EMPTY_PATH]],
    }


def paired_ratio(rounds: Sequence[dict[str, Any]], against: Sequence[dict[str, Any]]) -> float:
    """Median of the rounds' ratios: a machine that changes its speed moves both."""
    pairs = zip(rounds, against, strict=True)
    return round(float(statistics.median(a["rps"] / b["rps"] for a, b in pairs)), 4)


def median(rounds: Sequence[dict[str, Any]], key: str) -> float:
    return float(statistics.median(r[key] for r in rounds))


async def metrics_text(address: str) -> str:
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        return (await client.get("/metrics")).raise_for_status().text


def batches(exposition: str) -> tuple[float, float]:
    """Requests and calls of the retrieve stage so far."""
    found = {name: float(value) for name, value in _BATCHES.findall(exposition)}
    return found.get("sum", 0.0), found.get("count", 0.0)


async def measure(bench: Bench, plan: Plan) -> dict[str, Any]:
    """Everything, on a rig whose coordinator is already starting."""
    readiness = await bench.supervisor.start_coordinator()
    generation = bench.snapshot().manifest.generation
    await asyncio.to_thread(wait_served, Target(readiness.url), COLLECTION, generation)
    vectors = await query_vectors(bench)
    ceiling = await loadgen(
        "--ceiling", "--connections", str(plan.connections), "--seconds", str(plan.seconds)
    )
    with tempfile.TemporaryDirectory(prefix="ragrig-bench-") as folder:
        loader = Loader(readiness.url.removeprefix("http://"), Path(folder) / "bodies.jsonl")
        write_bodies(loader.bodies, vectors)
        result = await latency(bench, loader, vectors, plan)
        result |= await throughput(bench, loader, plan)
    return result | {
        "connections": plan.connections,
        "loadgen_rps": ceiling["rps"],
        "queries": len(vectors),
        "k": _K,
        "retrieval_nodes": len(bench.rig.retrieval_nodes),
        "backend": "fpga/emulator",
    }


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round under load")
    parser.add_argument("--sequential", type=int, default=200, help="searches of one round")
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    plan = Plan(given.rounds, given.seconds, given.sequential, given.connections)
    result: dict[str, Any] = {}

    async def body(bench: Bench) -> None:
        result.update(await measure(bench, plan))

    server = Path(__file__).with_name("overhead_server.py")
    programs = Programs(coordinator=(sys.executable, str(server), "serve"))
    run_bench(given.data_dir, body, programs)
    emit(result | {"machine": machine()}, given)


if __name__ == "__main__":
    with typed_failures():
        main()
