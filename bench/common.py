"""What every benchmark shares: options, the machine's description, the result."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from ragschema.errors import RagrigError

_LIBRARIES = (
    "numpy",
    "faiss-cpu",
    "torch",
    "transformers",
    "grpcio",
    "uvicorn",
    "fastapi",
)


def options(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON to FILE")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="a demo's data directory to use again (default: .ragrig/demo, else a temporary one)",
    )
    return parser


def machine() -> dict[str, Any]:
    """Where the numbers come from; figures of two machines do not compare."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_1min": round(os.getloadavg()[0], 2),
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def note(text: str) -> None:
    """Progress, on stderr, so that stdout holds the result alone."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def typed_failures() -> Iterator[None]:
    """Ends the process with a message instead of a stack trace."""
    try:
        yield
    except RagrigError as error:
        note(f"error: {error}")
        raise SystemExit(1) from None


def emit(result: Mapping[str, Any], given: argparse.Namespace) -> None:
    """Prints the result, as JSON or as lines, and writes it to --out."""
    text = json.dumps(result, indent=1)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n", encoding="utf-8")
    if given.json:
        print(text)
        return
    width = max(len(key) for key in result)
    for key, value in result.items():
        print(f"{key:<{width}}  {value}")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by ``share`` of them; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
