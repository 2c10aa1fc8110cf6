"""A node as a process of its own that starts in a moment: ``tests.fake_nodes`` behind ``serve``.

FAKE_NODE_FAILS=<name> in the environment keeps that node from starting.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from ragschema import procs
from tests.fake_nodes import FakeLlm, FakeRetrieval, FakeServer

DIM = 8
PIECES = ("A cat ", "sits [1", "].")
PIECE_S = 0.02


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--roles")
    parser.add_argument("--data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ready-file", required=True, type=Path)
    parser.add_argument("--parent-pid", required=True, type=int)
    args, _ = parser.parse_known_args()
    procs.exit_with_parent(args.parent_pid)
    if os.environ.get("FAKE_NODE_FAILS") == args.name:
        raise SystemExit("no memory")
    node: FakeLlm | FakeRetrieval
    if args.roles is None:
        node = FakeRetrieval(args.name, Path(args.data))
    else:
        node = FakeLlm(args.name, DIM)
        node.script, node.pause_s = PIECES, PIECE_S / args.threads
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with FakeServer(node) as server:
        procs.announce(args.ready_file, args.name, server.address)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
