"""This machine and the software on it, as measurements have to name them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from shutil import which
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from ragschema.version import PROTOCOL_VERSION, SOFTWARE_VERSION

_STRICT = ConfigDict(extra="forbid", strict=True)
_LIBRARIES: Final = ("numpy", "faiss-cpu", "torch", "transformers", "grpcio", "uvicorn")
_GIT_S: Final = 5.0

Line = Annotated[str, Field(max_length=200)]


@dataclass(frozen=True)
class Machine:
    """What a latency depends on beside software.

    Attributes:
        cores: that this process may use.
        simd: the widest vector instructions, such as ``avx512vbmi``.
    """

    __pydantic_config__ = _STRICT
    cpu: Line
    cores: Annotated[int, Field(ge=1)]
    memory_gib: Annotated[float, Field(gt=0)]
    simd: Line
    accelerators: Annotated[tuple[Line, ...], Field(max_length=1024)] = ()


@dataclass(frozen=True)
class Software:
    """What was measured.

    Attributes:
        commit: of the source tree; None: it is no checkout. With ``+`` behind it: changed since.
    """

    __pydantic_config__ = _STRICT
    ragrig: Line
    protocol: int
    commit: Line | None
    python: Line
    libraries: Annotated[Mapping[Line, Line | None], Field(max_length=64)]


def this_machine(root: Path = Path("/")) -> Machine:
    """Reads /proc; what is not there is told as ``unknown``.

    Args:
        root: what stands for ``/``.
    """
    info = _read(root / "proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    return Machine(
        cpu=(model[1].strip() if model else platform.machine() or "unknown")[:200],
        cores=usable_cores(),
        memory_gib=round(int(memory[1]) / 2**20, 1) if memory else 1.0,
        simd=_widest(frozenset(flags[1].split()) if flags else frozenset()),
        accelerators=tuple(sorted(_gpus(root))),
    )


def this_software() -> Software:
    """Versions installed for this interpreter."""
    return Software(
        ragrig=SOFTWARE_VERSION,
        protocol=PROTOCOL_VERSION,
        commit=_commit(Path(__file__).resolve().parent),
        python=platform.python_version(),
        libraries={name: _version(name) for name in _LIBRARIES},
    )


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _widest(flags: frozenset[str]) -> str:
    known = ("avx512vbmi", "avx512bw", "avx2", "asimd")
    return next((name for name in known if name in flags), "none known")


def _gpus(root: Path) -> list[str]:
    found = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    names = (re.search(r"^Model:\s*(.+)$", _read(path), re.MULTILINE) for path in found)
    return [name[1].strip()[:200] for name in names if name]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit(directory: Path) -> str | None:
    git = which("git")
    if git is None or not (directory.parent / ".git").exists():
        return None
    head = _said([git, "-C", str(directory), "rev-parse", "HEAD"])
    if not head:
        return None
    changed = _said([git, "-C", str(directory), "status", "--porcelain", "-uno"])
    return head + ("+" if changed else "")


def _said(argv: list[str]) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  fixed argument lists
            argv, capture_output=True, text=True, timeout=_GIT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()[:200] if done.returncode == 0 else None
