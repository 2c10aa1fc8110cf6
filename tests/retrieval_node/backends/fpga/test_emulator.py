from __future__ import annotations

import time

import numpy as np
import pytest

from ragschema.errors import Unavailable
from retrieval_node.backends.fpga.device import (
    ARGUMENTS,
    CODES_LOW,
    CTRL,
    ERROR,
    Ctrl,
    DeviceError,
    write_argument,
)
from retrieval_node.backends.fpga.driver import WorkArea, place
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig


@pytest.fixture
def device():  # type: ignore[no-untyped-def]
    opened = EmulatedDevice(EmulatorConfig(compute_units=1, banks=2, bank_bytes=1 << 16))
    yield opened
    opened.close()


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
    assert device.free_bytes(1) == (1 << 16) - 8192
    with pytest.raises(Unavailable, match="bank 1"):
        device.allocate(60_000, 1)
    device.free(b.address)
    assert device.free_bytes(1) == 1 << 16
    device.allocate(60_000, 1)


def _start(device: EmulatedDevice, **arguments: int) -> DeviceError:
    for name in ARGUMENTS:
        write_argument(device, 0, name, arguments.get(name, 0))
    device.write_register(0, CTRL, int(Ctrl.START))
    device.wait(0, 30.0)
    return DeviceError(device.read_register(0, ERROR))


def _arguments(device: EmulatedDevice) -> dict[str, int]:
    codes = np.zeros(64, dtype=np.uint8)
    codes[1] = 1
    arrays = {
        "codes": codes,
        "ids": np.array([0, 1, 2], dtype=np.uint32),
        "tables": np.arange(256, dtype=np.uint16)[::-1].copy(),
        "jobs": np.array([[0, 3, 0, 0, 10, -1]], dtype=np.int64),
        "starts": np.array([0, 1], dtype=np.int64),
        "sums": np.zeros(2, dtype=np.int64),
        "rows": np.zeros(2, dtype=np.int64),
        "counts": np.zeros(1, dtype=np.int32),
    }
    numbers = {
        "code_rows": 3, "num_jobs": 1, "num_queries": 1, "num_tables": 1, "m": 1, "k": 2,
        "sum_max": (1 << 24) - 1, "code_bytes": 64, "row_start": 5,
    }  # fmt: skip
    return {name: place(device, array).address for name, array in arrays.items()} | numbers


def test_runs_a_scan_from_registers_alone(device: EmulatedDevice) -> None:
    arguments = _arguments(device)
    assert _start(device, **arguments) is DeviceError.NONE
    sums = device._resolve(arguments["sums"], np.int64, (2,))
    rows = device._resolve(arguments["rows"], np.int64, (2,))
    assert sums.tolist() == [264, 265]
    assert rows.tolist() == [6, 5]


def test_a_polled_unit_runs_by_itself(device: EmulatedDevice) -> None:
    """START returns at once; nobody has to wait for the work to be done."""
    arguments = _arguments(device)
    for name in ARGUMENTS:
        write_argument(device, 0, name, arguments.get(name, 0))
    device.write_register(0, CTRL, int(Ctrl.START))
    ends = time.monotonic() + 30
    while not (seen := device.read_register(0, CTRL)) & Ctrl.DONE:
        assert seen == 0, "neither idle nor done while it runs"
        assert time.monotonic() < ends
    assert device.read_register(0, CODES_LOW) == 3
    assert _start(device, **arguments) is DeviceError.NONE


@pytest.mark.parametrize(
    "job",
    [
        [64, 3, 0, 0, 10, -1],
        [0, 4, 0, 0, 10, -1],
        [0, 3, 1, 0, 10, -1],
        [0, 3, 0, 1, 10, -1],
        [0, 3, 0, 0, 1 << 24, -1],
        [0, 3, 0, 0, 10, 0],
    ],
    ids=["codes", "rows", "first row", "table", "bias", "mask"],
)
def test_a_job_outside_its_arrays_is_an_error_code(device: EmulatedDevice, job: list[int]) -> None:
    arguments = _arguments(device)
    wrong = place(device, np.array([job], dtype=np.int64)).address
    assert _start(device, **(arguments | {"jobs": wrong})) is DeviceError.BAD_ARGUMENT
    assert _start(device, **arguments) is DeviceError.NONE


def test_done_clears_when_it_is_read(device: EmulatedDevice) -> None:
    assert device.read_register(0, CTRL) == Ctrl.IDLE
    _start(device, **_arguments(device))
    assert device.read_register(0, CTRL) == Ctrl.IDLE | Ctrl.DONE
    assert device.read_register(0, CTRL) == Ctrl.IDLE


@pytest.mark.parametrize("name", ["ids", "tables", "jobs", "sums"])
def test_an_address_that_leads_nowhere_is_an_error_code(device: EmulatedDevice, name: str) -> None:
    arguments = _arguments(device)
    assert _start(device, **(arguments | {name: 64})) is DeviceError.BAD_ADDRESS
    past = arguments[name] + 4090
    assert _start(device, **(arguments | {name: past})) is DeviceError.BAD_ADDRESS
    assert _start(device, **(arguments | {"k": 0})) is DeviceError.BAD_ARGUMENT
    assert _start(device, **arguments) is DeviceError.NONE


def test_a_work_area_grows_and_gives_the_old_buffer_back(device: EmulatedDevice) -> None:
    area = WorkArea(device)
    area.view(np.int64, (10,))
    first = area.send(80)
    area.view(np.int64, (2000,))
    assert area.send(16_000) != first
    used = sum((1 << 16) - device.free_bytes(bank) for bank in range(2))
    assert used == 16_384
