"""A tiny node: understands the options of ``serve``, announces itself, answers HTTP.

Behaviour by environment: STAND_IN_FAIL=<name> prints a reason and exits 1,
STAND_IN_USAGE=<name> exits 2, STAND_IN_DEAF=<name> ignores SIGTERM,
STAND_IN_CHILD=<name> starts a sleeping process of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from ragschema import procs
from ragschema.rig import load_rig


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="coordinator")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rig")
    parser.add_argument("--ready-file", required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    args, _ = parser.parse_known_args()
    procs.exit_with_parent(args.parent_pid)
    if os.environ.get("STAND_IN_FAIL") == args.name:
        print("there is no model in /nowhere", file=sys.stderr)
        raise SystemExit(1)
    if os.environ.get("STAND_IN_USAGE") == args.name:
        print("no such option: --wheels", file=sys.stderr)
        raise SystemExit(2)
    if os.environ.get("STAND_IN_DEAF") == args.name:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.environ.get("STAND_IN_CHILD") == args.name:
        print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
    port = load_rig(Path(args.rig)).coordinator.port if args.rig else args.port
    server = HTTPServer(("127.0.0.1", port), Handler)
    print(f"{args.name} serves", flush=True)
    procs.announce(Path(args.ready_file), args.name, f"127.0.0.1:{server.server_port}")
    server.serve_forever()


if __name__ == "__main__":
    main()
