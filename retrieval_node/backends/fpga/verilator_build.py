"""Compiles fpga/rtl into a library with Verilator, and calls it.

Needs a checkout of ragrig, and verilator and g++ on the path. A library is compiled
once per build and sources, into build/fpga.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ragschema.errors import InvalidInput, Unavailable
from ragschema.types import U8
from retrieval_node.backends.fpga.registers import Flags

_ROOT: Final = Path(__file__).resolve().parents[3]
_RTL: Final = _ROOT / "fpga" / "rtl"
_HARNESS: Final = _ROOT / "fpga" / "sim" / "ragrig_model.cpp"
_LIBRARY: Final = "libragrig.so"
#: ragrig_scan only names ports for Vitis.
_LEFT_OUT: Final = "ragrig_scan.sv"
_TIMEOUT_S: Final = 900


@dataclass(frozen=True)
class RtlBuild:
    """Parameters of ragrig_core.

    Attributes:
        channels, m: memory channels and table columns, powers of two with at least
            two lanes, 64 * channels / m.
        table_bits, sum_bits, k_max: LW, SW and KMAX.
        features: lane masks, biases of codes, tables made of vectors with a codebook.
        macs, steps: of the table maker, components per column and cycle, and words per code
            that it has room for; macs * m is at least 32.
    """

    channels: int = 4
    m: int = 16
    table_bits: int = 16
    sum_bits: int = 24
    k_max: int = 128
    features: Flags = Flags.MASKS | Flags.BIASES | Flags.VECTORS | Flags.CODEBOOK
    macs: int = 8
    steps: int = 4

    def __post_init__(self) -> None:
        for name in ("channels", "m", "macs"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise InvalidInput(f"{value} is not a power of two", field=name)
        if 64 * self.channels < 2 * self.m:
            raise InvalidInput(f"{self.m} columns leave less than two lanes", field="m")
        if self.macs * self.m < 32:
            raise InvalidInput(f"{self.macs} are less than a beat of all columns", field="macs")
        if self.steps < 1:
            raise InvalidInput(f"{self.steps} is less than 1", field="steps")

    @property
    def lanes(self) -> int:
        """P, codes per cycle."""
        return 64 * self.channels // self.m

    @property
    def _parameters(self) -> list[str]:
        names = {
            "channels": "CHANNELS", "m": "M", "table_bits": "LW", "sum_bits": "SW", "k_max": "KMAX",
            "features": "FEATURES", "macs": "MACS", "steps": "STEPS",
        }  # fmt: skip
        return [f"-G{names[name]}={int(value)}" for name, value in asdict(self).items()]


@dataclass(frozen=True)
class MemoryTiming:
    """How the model's memory answers.

    Attributes:
        latency_cycles: from a burst's address to its first beat.
        beats_per_cycle: of each port, in (0, 1].
        pause_share: of cycles in which a port does nothing, at random, in [0, 1).
        seed: of the pauses.
    """

    latency_cycles: int = 40
    beats_per_cycle: float = 1.0
    pause_share: float = 0.0
    seed: int = 1


def sources() -> list[Path]:
    """Of the core, its package first."""
    package = _RTL / "ragrig_regs_pkg.sv"
    rest = (path for path in sorted(_RTL.glob("*.sv")) if path.name != _LEFT_OUT)
    return [package, *(path for path in rest if path != package)]


def compile_model(build: RtlBuild) -> Path:
    """The library of a build, compiled where it is not there yet.

    Raises:
        Unavailable: no checkout, no verilator or no compiler; or it does not compile.
    """
    if not _HARNESS.exists():
        raise Unavailable(
            "the accelerator's RTL is not here", hint="device verilator needs ragrig's checkout"
        )
    files = [*sources(), _HARNESS]
    made_of = [*build._parameters, *(path.read_text(encoding="utf-8") for path in files)]
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    folder = _ROOT / "build" / "fpga" / f"model-{key}"
    if not (folder / _LIBRARY).exists():
        _compile(build, files, folder)
    return folder / _LIBRARY


def _compile(build: RtlBuild, files: list[Path], folder: Path) -> None:
    for command in ("verilator", "g++", "make"):
        if shutil.which(command) is None:
            raise Unavailable(f"{command} is not installed", hint=f"sudo apt-get install {command}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as own:
        flags = f"-fPIC -O1 -std=c++17 -DCHANNELS={build.channels}"
        done = subprocess.run(  # noqa: S603  our own sources
            ["verilator", "--cc", "--exe", "--build", "-j", "2", "-O3", "--x-assign", "fast",  # noqa: S607
             "--x-initial", "fast", "--noassert", "-Wno-fatal", "-Mdir", own, *build._parameters,
             "--top-module", "ragrig_core", "-CFLAGS", flags, "-LDFLAGS", "-shared",
             "-o", _LIBRARY, *map(str, files)],
            capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
            env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"},
        )  # fmt: skip
        if done.returncode != 0:
            raise Unavailable(f"the RTL does not compile: {done.stderr[-2000:]}")
        folder.mkdir(exist_ok=True)
        # In one step: others may compile the same.
        (Path(own) / _LIBRARY).replace(folder / _LIBRARY)


class RtlModel:
    """One instance of the compiled core and its memory.

    Raises:
        Unavailable: as ``compile_model``.
    """

    def __init__(self, build: RtlBuild, timing: MemoryTiming | None = None) -> None:
        timing = timing or MemoryTiming()
        self._library = _load(compile_model(build))
        self._model = ctypes.c_void_p(
            self._library.ragrig_new(
                timing.latency_cycles, round(1024 * timing.beats_per_cycle),
                round(1024 * timing.pause_share), timing.seed,
            )
        )  # fmt: skip
        self._mapped: dict[int, U8] = {}

    def reset(self) -> None:
        """Nothing runs afterwards; memory stays as it is."""
        self._library.ragrig_reset(self._model)

    def map(self, address: int, data: U8) -> None:
        """Puts an array, whole beats of 64 bytes, at an address."""
        self._mapped[address] = data
        self._library.ragrig_map(self._model, address, data.ctypes.data, len(data))

    def unmap(self, address: int) -> None:
        """Takes the array at an address away; where there is none, nothing happens."""
        if self._mapped.pop(address, None) is not None:
            self._library.ragrig_unmap(self._model, address)

    def write(self, offset: int, value: int) -> None:
        self._library.ragrig_write(self._model, offset, value)

    def read(self, offset: int) -> int:
        return int(self._library.ragrig_read(self._model, offset))

    def run(self, cycles: int) -> int:
        """Lets cycles pass until nothing runs; how many did."""
        return int(self._library.ragrig_run(self._model, cycles))

    def fault(self, number: int) -> None:
        """The next read hangs (1) or fails (2), or the next write does (3)."""
        self._library.ragrig_fault(self._model, number)

    @property
    def failed(self) -> bool:
        """Whether a check inside the RTL failed."""
        return bool(self._library.ragrig_failed())

    def close(self) -> None:
        """Nothing but ``unmap`` may follow."""
        self._library.ragrig_delete(self._model)
        self._model = ctypes.c_void_p()
        self._mapped.clear()


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    u32, u64, pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
    for name, result, arguments in (
        ("new", pointer, (u32, u32, u32, u64)), ("delete", None, (pointer,)),
        ("reset", None, (pointer,)), ("map", None, (pointer, u64, pointer, u64)),
        ("unmap", None, (pointer, u64)), ("write", None, (pointer, u32, u32)),
        ("read", u32, (pointer, u32)), ("run", u64, (pointer, u64)),
        ("fault", None, (pointer, u32)), ("failed", u32, ()),
    ):  # fmt: skip
        call = getattr(library, f"ragrig_{name}")
        call.restype, call.argtypes = result, arguments
    return library
