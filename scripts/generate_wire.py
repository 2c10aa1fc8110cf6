"""Generates the stubs in ragschema/wire/ from proto/. Run by `make proto`.

``--out DIR`` writes elsewhere, so that a test can prove the committed stubs fresh.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def generate(out: Path) -> int:
    """Runs protoc with the typed-stub plugin; returns its exit status."""
    from grpc_tools import protoc

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    sources = sorted(str(p) for p in (ROOT / "proto").rglob("*.proto"))
    flags = [f"--{kind}_out={out}" for kind in ("python", "mypy", "grpc_python", "mypy_grpc")]
    return int(protoc.main(["protoc", f"-I{ROOT / 'proto'}", *flags, *sources]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT, help="folder to write below")
    return generate(parser.parse_args().out)


if __name__ == "__main__":
    sys.exit(main())
