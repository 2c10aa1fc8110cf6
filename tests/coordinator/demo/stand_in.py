"""A coordinator that answers what the demo asks; a node when it is given no rig."""

from __future__ import annotations

import argparse
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ragschema import procs
from tests.coordinator.cli.helpers import ANSWER, COLLECTION, sse


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send(json.dumps(COLLECTION).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if os.environ.get("STAND_IN_REFUSE"):
            error = {"type": "overloaded", "message": "too busy", "field": None, "hint": None}
            self._send(json.dumps({"error": error}).encode(), 429)
        elif body["stream"]:
            self._send(sse(("token", {"text": "Streamed."}), ("done", ANSWER)))
        else:
            self._send(json.dumps(ANSWER).encode())

    def _send(self, raw: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="coordinator")
    parser.add_argument("--ready-file", required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    args, _ = parser.parse_known_args()
    procs.exit_with_parent(args.parent_pid)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    procs.announce(Path(args.ready_file), args.name, f"127.0.0.1:{server.server_port}")
    server.serve_forever()


if __name__ == "__main__":
    main()
