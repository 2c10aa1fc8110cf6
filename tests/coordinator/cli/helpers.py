"""A small real HTTP server that answers as a coordinator would."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from coordinator.supervisor.resolve import with_addresses, write_rig
from coordinator.supervisor.rundir import RigState, RunDir
from ragschema.rig import RigConfig, parse_rig

HIT = {
    "chunk_id": "c1",
    "document_id": "guides/keys.md",
    "title": "Keys",
    "start": 3,
    "end": 40,
    "headings": ["Operations", "Keys"],
    "tokens": 9,
    "score": 0.75,
    "text": "Keys are rotated\nwith the \x1b[31mrotate\x1b[0m command.",
    "metadata": {},
}
FULL = {"fraction": 1.0, "missing": []}
TIMINGS = {"queue_ms": 0.1, "embed_ms": 2.0, "probe_ms": None, "total_ms": 9.25}
ANSWER = {
    "answer": "Rotate it [1].",
    "citations": [{**HIT, "number": 1, "cited": True}],
    "coverage": FULL,
    "timings": TIMINGS,
}
COLLECTION: dict[str, Any] = {
    "name": "docs",
    "generation": 3,
    "documents": 2,
    "rows": 5,
    "index": "exact",
    "nlist": None,
    "nprobe": None,
    "recall": {"wanted": None, "estimate": None, "lower_bound": None, "samples": 0},
    "num_shards": 2,
    "error": None,
}


def error_body(kind: str, message: str, hint: str | None = None) -> dict[str, Any]:
    return {
        "error": {"type": kind, "message": message, "field": None, "hint": hint, "trace_id": "t"}
    }


def sse(*events: tuple[str, Any]) -> bytes:
    frames = [f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events]
    return (": still working\n\n" + "".join(frames)).encode()


@dataclass
class FakeCoordinator:
    """Answers by (method, path); bytes are sent as an event stream."""

    replies: dict[tuple[str, str], tuple[int, Any]]
    seen: list[tuple[str, Any, str | None]] = field(default_factory=list)
    url: str = ""


@contextlib.contextmanager
def serving(replies: dict[tuple[str, str], tuple[int, Any]]) -> Iterator[FakeCoordinator]:
    fake = FakeCoordinator(replies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            self._answer(json.loads(self.rfile.read(size)))

        def _answer(self, body: Any) -> None:
            fake.seen.append((self.path, body, self.headers.get("authorization")))
            unknown = (404, error_body("not_found", f"nothing at {self.path}"))
            status, reply = fake.replies.get((self.command, self.path), unknown)
            raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def claimed_rig(data_dir: Path, url: str, text: str = "") -> Iterator[RigConfig]:
    """Run files as a supervisor leaves them while its rig runs."""
    rig = parse_rig(text, "test rig", data_dir)
    names = [n.name for n in rig.llm_nodes] + [n.name for n in rig.retrieval_nodes]
    address = url.removeprefix("http://")
    port = int(address.rpartition(":")[2])
    rig = with_addresses(rig, dict.fromkeys(names, "127.0.0.1:1"), port)
    run = RunDir.of(data_dir)
    run.create()
    with run.locked():
        write_rig(run.resolved_rig, rig)
        run.write_state(RigState(1, address, ()))
        yield rig
