"""The emulated card alone: memory, registers, starts; written to without the driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ragschema.errors import Unavailable
from retrieval_node.backends.fpga.device import read_build, read_value, write_argument
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig
from retrieval_node.backends.fpga.faults import Fault
from retrieval_node.backends.fpga.records import NO_MASK, Answer, read_answer, result_bytes
from retrieval_node.backends.fpga.registers import REGISTERS, VERSION, Ctrl, Error, Flags, Mode

CTRL = REGISTERS["ctrl"].offset
SUM_MAX = (1 << 24) - 1


@pytest.fixture
def device() -> Iterator[EmulatedDevice]:
    opened = EmulatedDevice(EmulatorConfig(compute_units=1, banks=2, bank_bytes=1 << 17))
    yield opened
    opened.close()


def place(device: EmulatedDevice, array: NDArray[Any]) -> int:
    buffer = device.allocate(array.nbytes, 0)
    buffer.host[: array.nbytes] = array.reshape(-1).view(np.uint8)
    buffer.to_device(array.nbytes)
    return buffer.address


def arguments(device: EmulatedDevice) -> dict[str, int]:
    """One query, one list of 3 codes of 8 bytes: the first bytes are 0, 1, 0."""
    codes = np.zeros((64, 8), dtype=np.uint8)
    codes[1, 0] = 1
    tables = np.zeros((256, 8), dtype=np.uint16)
    tables[:, 0] = np.arange(256)[::-1]
    arrays: dict[str, NDArray[Any]] = {
        "lists": np.array([[0, 3, 0, 10, NO_MASK, 0, 0, 0]], dtype=np.uint32),
        "tables": tables,
        "ids": np.array([7, 5, 6], dtype=np.uint32),
        "results": np.zeros(result_bytes(2), dtype=np.uint8),
        "codes": np.zeros((64, 8), dtype=np.uint8),
    }
    numbers = {"num_queries": 1, "nprobe": 1, "k": 2, "m": 1, "mode": 1, "code_bytes": 8}
    given = {name: place(device, array) for name, array in arrays.items()} | numbers
    given["codes"] = place(device, codes)
    return given


def put(device: EmulatedDevice, given: dict[str, int]) -> None:
    for name, value in given.items():
        for channel in range(4) if name == "codes" else (0,):
            write_argument(device, 0, name, value, channel)


def start(device: EmulatedDevice, **given: int) -> Error:
    put(device, given)
    device.write_register(0, CTRL, int(Ctrl.START))
    wait(device)
    return Error(read_value(device, 0, "error"))


def wait(device: EmulatedDevice) -> None:
    ends = time.monotonic() + 30
    while not device.read_register(0, CTRL) & Ctrl.DONE:
        assert time.monotonic() < ends
        time.sleep(1e-4)


def answer(device: EmulatedDevice, given: dict[str, int]) -> Answer:
    buffer, _ = device.memory.find(given["results"])
    buffer.from_device(result_bytes(given["k"]))
    return read_answer(buffer.host[: result_bytes(given["k"])], 1, given["k"], SUM_MAX, 100)


def test_host_and_device_bytes_differ_until_they_are_synced(device: EmulatedDevice) -> None:
    buffer = device.allocate(100, 0)
    buffer.host[:4] = (1, 2, 3, 4)
    assert buffer.device[:4].tolist() != [1, 2, 3, 4]
    buffer.to_device(4)
    assert buffer.device[:4].tolist() == [1, 2, 3, 4]
    assert buffer.device[4] != buffer.host[4]
    buffer.device[0] = 9
    assert buffer.host[0] == 1
    buffer.from_device(1)
    assert buffer.host[0] == 9


def test_addresses_are_aligned_and_banks_are_limited(device: EmulatedDevice) -> None:
    a, b = device.allocate(1, 0), device.allocate(5000, 1)
    assert a.address % 4096 == 0
    assert b.address % 4096 == 0
    assert device.free_bytes(1) == (1 << 17) - 8192
    with pytest.raises(Unavailable, match="bank 1"):
        device.allocate(125_000, 1)
    device.free(b.address)
    device.free(b.address)  # no error, as after a reset
    assert device.free_bytes(1) == 1 << 17
    device.allocate(125_000, 1)


def test_the_build_is_in_the_registers_and_cannot_be_written(device: EmulatedDevice) -> None:
    for name in ("version", "build_kmax", "build_features"):
        write_argument(device, 0, name, 0)
    assert read_value(device, 0, "version") == VERSION
    assert read_build(device) == device.config.build


def test_runs_a_scan_from_registers_alone(device: EmulatedDevice) -> None:
    """Channel 0 holds the codes; code i of a list of 3 lies in channel 0's slot i."""
    given = arguments(device)
    assert start(device, **given) is Error.NONE
    found = answer(device, given)
    assert found.sums.tolist() == [[264, 265]]
    assert found.ids.tolist() == [[5, 7]]  # the second by its tag, not its id
    assert found.counts.tolist() == [2]
    assert found.codes == read_value(device, 0, "codes_scanned") == 3
    assert read_value(device, 0, "cycles") == found.cycles[0] > 256
    assert read_value(device, 0, "bytes_read") == 4 * 64
    assert read_value(device, 0, "queries_done") == 1


def test_a_defect_of_the_scan_is_raised_where_the_host_looks(
    device: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(device._scan, "run", broken)
    device.write_register(0, CTRL, int(Ctrl.START))
    with pytest.raises(ZeroDivisionError):
        device.read_register(0, CTRL)


def test_entries_past_count_are_all_ones(device: EmulatedDevice) -> None:
    given = arguments(device)
    given |= {"k": 5, "results": place(device, np.zeros(result_bytes(5), np.uint8))}
    assert start(device, **given) is Error.NONE
    found = answer(device, given)
    assert found.counts.tolist() == [3]
    assert found.sums[0, 3:].tolist() == found.ids[0, 3:].tolist() == [0xFFFFFFFF] * 2


def test_a_start_returns_at_once_and_is_neither_idle_nor_done_while_it_runs(
    device: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks: the card's own thread runs it."""
    began, go = threading.Event(), threading.Event()
    real = device._scan.run

    def slow(*args):  # type: ignore[no-untyped-def]
        began.set()
        assert go.wait(30)
        return real(*args)

    monkeypatch.setattr(device._scan, "run", slow)
    put(device, arguments(device))
    assert device.read_register(0, CTRL) == Ctrl.IDLE
    device.write_register(0, CTRL, int(Ctrl.START))
    assert began.wait(30)
    assert device.read_register(0, CTRL) == 0
    device.write_register(0, CTRL, int(Ctrl.START))  # ignored
    go.set()
    wait(device)
    assert device.read_register(0, CTRL) == Ctrl.IDLE  # done clears when it is read
    assert read_value(device, 0, "codes_scanned") == 3


@pytest.mark.parametrize("name", ["lists", "tables", "ids", "codes"])
def test_an_address_that_leads_nowhere_is_a_read_error(device: EmulatedDevice, name: str) -> None:
    given = arguments(device)
    for wrong in (64, given[name] + (1 << 30)):
        assert start(device, **(given | {name: wrong})) is Error.AXI_READ
    assert start(device, **given) is Error.NONE


def test_memory_that_was_never_synced_is_no_memory(device: EmulatedDevice) -> None:
    given = arguments(device)
    for name in ("lists", "tables", "ids", "codes"):
        fresh = device.allocate(8192, 0).address
        assert start(device, **(given | {name: fresh})) is Error.AXI_READ


def test_results_that_lead_nowhere_are_a_write_error(device: EmulatedDevice) -> None:
    assert start(device, **(arguments(device) | {"results": 64})) is Error.AXI_WRITE


@pytest.mark.parametrize(
    "change",
    [{"k": 0}, {"k": 1 << 20}, {"nprobe": 0}, {"num_queries": 0}, {"m": 9}, {"code_bytes": 12},
     {"flags": 1 << 5}, {"flags": int(Flags.BIASES), "mode": int(Mode.TABLE_PER_LIST)}],
)  # fmt: skip
def test_an_argument_that_no_card_can_do(device: EmulatedDevice, change: dict[str, int]) -> None:
    given = arguments(device)
    assert start(device, **(given | change)) is Error.BAD_ARGUMENT
    assert start(device, **(given | {"flags": 0})) is Error.NONE


@pytest.mark.parametrize(
    ("word", "value", "error"),
    [
        (0, 1, Error.BAD_ARGUMENT),
        (0, 1024, Error.AXI_READ),
        (1, 4, Error.AXI_READ),
        (2, 1, Error.AXI_READ),
        (3, 1 << 24, Error.BAD_ARGUMENT),
        (5, 1, Error.AXI_READ),
        (1, 5000, Error.AXI_READ),
    ],
    ids=["unaligned", "far beat", "codes", "tag", "bias", "table", "many codes"],
)
def test_a_descriptor_that_cannot_be(
    device: EmulatedDevice, word: int, value: int, error: Error
) -> None:
    given = arguments(device)
    record = np.array([[0, 3, 0, 10, NO_MASK, 0, 0, 0]], dtype=np.uint32)
    record[0, word] = value
    assert start(device, **(given | {"lists": place(device, record)})) is error
    assert start(device, **given) is Error.NONE


def test_a_mask_past_the_masks_is_a_read_error(device: EmulatedDevice) -> None:
    given = arguments(device) | {"flags": int(Flags.MASKS)}
    record = np.array([[0, 3, 0, 10, 0, 0, 0, 0]], dtype=np.uint32)
    given |= {"lists": place(device, record)}
    given |= {"masks": place(device, np.array([0b101], dtype=np.uint64))}
    assert start(device, **given) is Error.NONE
    assert answer(device, given).sums.tolist() == [[265, 265]]
    record[0, 4] = 1
    given |= {"lists": place(device, record)}
    assert start(device, **given) is Error.AXI_READ


@pytest.mark.parametrize("fault", [Fault.AXI_READ, Fault.AXI_WRITE])
def test_a_memory_fault_on_demand_comes_once(device: EmulatedDevice, fault: Fault) -> None:
    given = arguments(device)
    device.faults.inject(fault, after=1)
    assert start(device, **given) is Error.NONE
    assert start(device, **given) is fault.error
    assert read_value(device, 0, "queries_done") == 0
    assert start(device, **given) is Error.NONE


def test_a_hang_lasts_until_the_card_is_reset(device: EmulatedDevice) -> None:
    given = arguments(device)
    put(device, given)
    device.faults.inject(Fault.HANG)
    for _ in range(3):
        device.write_register(0, CTRL, int(Ctrl.START))
        assert device.read_register(0, CTRL) == 0
    device.reset()
    assert device.read_register(0, CTRL) == Ctrl.IDLE
    assert device.free_bytes(0) == 1 << 17
    assert start(device, **given) is not Error.NONE  # no buffer is left
    assert start(device, **arguments(device)) is Error.NONE


def test_a_changed_code_is_seen_by_the_next_start(device: EmulatedDevice) -> None:
    """Regrouped codes are a copy; it must not outlive what it is a copy of."""
    given = arguments(device)
    assert start(device, **given) is Error.NONE
    buffer, _ = device.memory.find(given["codes"])
    buffer.flip(byte=2 * 8, bit=1)
    assert start(device, **given) is Error.NONE
    assert answer(device, given).sums.tolist() == [[263, 264]]


@pytest.mark.parametrize("name", ["lists", "tables", "ids", "codes"])
def test_a_watchful_card_finds_a_missing_sync(name: str) -> None:
    watchful = replace(EmulatorConfig(), watchful=True)
    device = EmulatedDevice(watchful)
    given = arguments(device)
    assert start(device, **given) is Error.NONE
    buffer, _ = device.memory.find(given[name])
    buffer.host[0] ^= 1
    assert start(device, **given) is Error.AXI_READ
    buffer.to_device(1)
    assert start(device, **given) in (Error.NONE, Error.BAD_ARGUMENT)
    device.close()


def test_a_watchful_card_shows_poison_until_results_are_synced() -> None:
    device = EmulatedDevice(replace(EmulatorConfig(), watchful=True))
    given = arguments(device)
    assert start(device, **given) is Error.NONE
    good = answer(device, given)
    assert start(device, **given) is Error.NONE
    buffer, _ = device.memory.find(given["results"])
    assert set(buffer.host.tolist()) == {0xA5}
    assert answer(device, given).sums.tolist() == good.sums.tolist()
    device.close()
