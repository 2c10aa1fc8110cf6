"""The driver on every device that answers at once: faults, limits, recovery, counters."""

from __future__ import annotations

import gc
import importlib
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import (
    DeviceFault,
    IncompatibleRequest,
    InternalError,
    InvalidInput,
    Unavailable,
    VersionMismatch,
)
from ragschema.types import Metric
from retrieval_node.backends.base import ScanRequest
from retrieval_node.backends.fpga.backend import FpgaBackend
from retrieval_node.backends.fpga.counters import HasCard
from retrieval_node.backends.fpga.device import Device
from retrieval_node.backends.fpga.driver import DriverConfig
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig
from retrieval_node.backends.fpga.faults import Fault
from retrieval_node.backends.fpga.pynq_device import PynqDevice
from retrieval_node.backends.fpga.registers import REGISTERS, VERSION, Error, Flags
from retrieval_node.backends.fpga.verilator_build import RtlBuild
from retrieval_node.backends.fpga.verilator_device import VerilatorConfig, VerilatorDevice
from retrieval_node.fixedpoint import Contract, TableMode
from tests.fake_pynq import bitstream, fake_pynq
from tests.retrieval_node.backends.fpga.cards import Loaded, ask, expected, load
from tests.retrieval_node.native.contract_reference import Shape

#: verilator compiles the RTL, with `make rtl-test`; the last where PYNQ itself is installed,
#: which wants numpy below 2.
KINDS = [
    "emulator", "pynq", pytest.param("verilator", marks=pytest.mark.rtl),
    *(["pynq-device"] if find_spec("pynq") else []),
]  # fmt: skip
#: Of the compiled RTL: eight lanes and few results, to compile soon.
SMALL_RTL = RtlBuild(channels=4, m=8, k_max=16)
SHAPE = Shape(Metric.L2, True, 8, 2, ((70, 0, 130, 9),))


@dataclass(frozen=True)
class Card:
    """A device, and the emulated card behind it, which is the device itself or not."""

    device: Device
    behind: EmulatedDevice | VerilatorDevice


class OldBitstream(VerilatorDevice):
    """The RTL, with another version in its register."""

    version = VERSION

    def read_register(self, unit: int, offset: int) -> int:
        found = super().read_register(unit, offset)
        return self.version if offset == REGISTERS["version"].offset else found


def open_rtl(config: EmulatorConfig) -> Card:
    if shutil.which("verilator") is None:
        pytest.skip("verilator is not installed: apt-get install verilator")
    device = OldBitstream(VerilatorConfig(SMALL_RTL, config.banks, config.bank_bytes))
    device.version = config.version
    return Card(device, device)


def open_card(kind: str, config: EmulatorConfig) -> Card:
    if kind == "verilator":
        return open_rtl(config)
    behind = EmulatedDevice(config)
    if kind == "pynq":
        return Card(PynqDevice("card.xclbin", fake_pynq(behind)), behind)
    if kind == "pynq-device":
        target = importlib.import_module("tests.pynq_card").CardDevice(behind)
        folder = Path(tempfile.mkdtemp())
        return Card(PynqDevice(bitstream(folder), target=target), behind)
    return Card(behind, behind)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def loaded() -> Loaded:
    return load(SHAPE, 7)


def opened(
    kind: str, loaded: Loaded, config: EmulatorConfig | None = None, timeout_s: float = 30.0
) -> tuple[FpgaBackend, EmulatedDevice | VerilatorDevice]:
    card = open_card(kind, config or EmulatorConfig(watchful=True))
    backend = FpgaBackend(card.device, config=DriverConfig(timeout_s=timeout_s))
    backend.load(loaded.shard_set)
    return backend, card.behind


def check(backend: FpgaBackend, loaded: Loaded, seed: int = 1) -> ScanRequest:
    """Searches and compares every bit with the reference."""
    request = ask(loaded, 9, 3, 6, seed)
    found = backend.search(loaded.shard_set, request)
    for query in range(9):
        distances, rows = expected(loaded, request, query, Contract(), None)
        count = int(found.counts[query])
        assert found.rows[query, :count].tolist() == rows.tolist()
        assert found.distances[query, :count].tobytes() == distances.tobytes()
    return request


def test_a_search_equals_the_reference(kind: str, loaded: Loaded) -> None:
    backend, _ = opened(kind, loaded)
    for seed in range(5):
        check(backend, loaded, seed)
    backend.close()


def test_a_hang_is_a_fault_within_the_timeout_and_the_next_search_recovers(
    kind: str, loaded: Loaded
) -> None:
    backend, card = opened(kind, loaded, timeout_s=0.3)
    request = check(backend, loaded)
    card.faults.inject(Fault.HANG)
    began = time.monotonic()
    with pytest.raises(DeviceFault, match=r"not done after 0.3 s"):
        backend.search(loaded.shard_set, request)
    assert 0.3 <= time.monotonic() - began < 3.0
    check(backend, loaded)
    totals = backend.driver.counters.totals
    assert (totals.faults, totals.resets) == (1, 1)
    backend.close()


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (Fault.AXI_READ, "axi_read"),
        (Fault.AXI_WRITE, "axi_write"),
        (Fault.HEAD, "query number of query 0 cannot be"),
        (Fault.ORDER, "query 0 cannot be"),
    ],
)
def test_a_fault_is_told_apart_and_the_next_search_recovers(
    kind: str, loaded: Loaded, fault: Fault, match: str
) -> None:
    backend, card = opened(kind, loaded)
    request = check(backend, loaded)
    card.faults.inject(fault)
    with pytest.raises(DeviceFault, match=match):
        backend.search(loaded.shard_set, request)
    check(backend, loaded)
    assert backend.driver.counters.totals.resets == 1
    backend.close()


def test_a_fault_between_two_starts_of_one_search_leaves_nothing_running(
    kind: str, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval_node.backends.fpga.backend._PIECE_QUERIES", 2)
    backend, card = opened(kind, loaded)
    request = check(backend, loaded)
    card.faults.inject(Fault.AXI_READ, after=2)
    with pytest.raises(DeviceFault):
        backend.search(loaded.shard_set, request)
    check(backend, loaded)
    backend.close()


def test_a_bitstream_of_another_version_is_refused_and_both_are_named(kind: str) -> None:
    with pytest.raises(VersionMismatch, match=r"version 3\.7, this driver is written for 1\.1"):
        FpgaBackend(open_card(kind, EmulatorConfig(version=0x0003_0007)).device)


def test_a_newer_minor_version_is_taken(kind: str, loaded: Loaded) -> None:
    backend, _ = opened(kind, loaded, EmulatorConfig(version=0x0001_0009))
    check(backend, loaded)
    backend.close()


def test_a_shard_larger_than_the_banks_is_refused_before_any_upload(
    kind: str, loaded: Loaded
) -> None:
    card = open_card(kind, EmulatorConfig(bank_bytes=4096, banks=4))
    backend = FpgaBackend(card.device)
    with pytest.raises(Unavailable, match=r"bank \d of .* lacks .* nothing was uploaded") as caught:
        backend.load(loaded.shard_set)
    assert "more retrieval nodes" in str(caught.value.hint)
    assert card.behind.memory.buffers() == []
    assert backend.driver.counters.totals.sent_bytes == 0
    backend.close()


def test_codes_lie_in_the_bank_of_their_channel(kind: str, loaded: Loaded) -> None:
    backend, card = opened(kind, loaded)
    (placed,) = backend.residents.segments
    assert [(buffer.address >> 40) - 1 for buffer in placed.codes] == [0, 1, 2, 3]
    assert all(buffer.address % 4096 == 0 for buffer in placed.buffers)
    del card
    backend.close()


def test_memory_is_given_back_with_the_shard_even_after_a_reset(kind: str) -> None:
    loaded = load(SHAPE, 7)
    backend, card = opened(kind, loaded)
    card.faults.inject(Fault.HEAD)
    with pytest.raises(DeviceFault):
        check(backend, loaded)
    check(backend, loaded)
    held = len(card.memory.buffers())
    del loaded
    gc.collect()
    assert held - len(card.memory.buffers()) == 5  # four channels and the ids
    backend.close()


def test_turned_bits_in_memory_are_found_and_mended(kind: str, loaded: Loaded) -> None:
    backend, card = opened(kind, loaded)
    backend.verify()
    (placed,) = backend.residents.segments
    card.memory.find(placed.codes[2].address)[0].flip(byte=5, bit=3)
    with pytest.raises(DeviceFault, match="buffer 2 of segment-0"):
        backend.verify()
    check(backend, loaded)
    backend.verify()
    backend.close()


@pytest.mark.parametrize("dropped", range(4))
def test_a_forgotten_sync_to_the_card_is_a_fault(
    loaded: Loaded, dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tables and descriptors, of the first start and of the second, one is forgotten."""
    from retrieval_node.backends.fpga.driver import CardDriver

    backend, _ = opened("emulator", loaded)
    count, real = iter(range(100)), CardDriver.send

    def send(self, buffer, nbytes):  # type: ignore[no-untyped-def]
        if next(count) != dropped:
            real(self, buffer, nbytes)

    monkeypatch.setattr(CardDriver, "send", send)
    seeds = iter(range(2))
    if dropped >= 2:
        check(backend, loaded, next(seeds))
    with pytest.raises(DeviceFault, match="axi_read"):
        check(backend, loaded, next(seeds))
    backend.close()


def test_a_forgotten_sync_from_the_card_is_a_fault(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval_node.backends.fpga.driver import WorkArea

    backend, _ = opened("emulator", loaded)
    for seed in range(3):
        check(backend, loaded, seed)
    monkeypatch.setattr(WorkArea, "fetch", lambda self, nbytes: None)
    with pytest.raises(DeviceFault, match="cannot be"):
        check(backend, loaded)
    backend.close()


def test_an_argument_that_the_card_refuses_is_a_defect_of_ours(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, card = opened("emulator", loaded)
    real = card.read_register

    def read(unit: int, offset: int) -> int:
        return int(Error.BAD_ARGUMENT) if offset == 0x320 else real(unit, offset)

    monkeypatch.setattr(card, "read_register", read)
    with pytest.raises(InternalError, match="bad_argument"):
        check(backend, loaded)
    assert not backend.driver.broken
    backend.close()


def test_what_a_build_cannot_do_is_refused(loaded: Loaded) -> None:
    small = replace(EmulatorConfig().build, m=4 * 2, k_max=16, features=Flags(0))
    device = EmulatedDevice(EmulatorConfig(build=small))
    long = load(replace(SHAPE, m=16), 1)
    with pytest.raises(IncompatibleRequest, match="codes of 16 bytes"):
        FpgaBackend(device).load(long.shard_set)
    with pytest.raises(IncompatibleRequest, match="no biases of codes"):
        FpgaBackend(device, mode=TableMode.PER_QUERY).load(loaded.shard_set)
    with pytest.raises(InvalidInput, match="table_bits=8"):
        FpgaBackend(device, Contract(8))
    backend = FpgaBackend(device)
    backend.load(loaded.shard_set)
    with pytest.raises(IncompatibleRequest, match="16 candidates are more than the card's 15"):
        backend.search(loaded.shard_set, ask(loaded, 1, 2, 16, 1))
    found = backend.search(loaded.shard_set, ask(loaded, 1, 4, 15, 1))
    assert found.counts.tolist() == [15]
    backend.close()


@pytest.mark.parametrize(("field", "value"), [("timeout_s", 0.0), ("tie_slack", 0)])
def test_settings_that_cannot_be(field: str, value: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        DriverConfig(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_counters_add_up(kind: str, loaded: Loaded) -> None:
    backend, _ = opened(kind, loaded)
    request = check(backend, loaded)
    codes = sum(
        int(np.diff(loaded.made.segments[0].offsets)[number])
        for number in request.lists[request.lists >= 0].tolist()
    )
    totals = backend.driver.counters.totals
    assert (totals.starts, totals.queries, totals.codes) == (1, 9, codes)
    assert totals.cycles > 0
    assert totals.bytes_read >= codes * 8
    assert totals.sent_bytes > codes * 8
    assert totals.fetched_bytes == 9 * 64 * 3
    assert isinstance(backend, HasCard)
    assert backend.card == totals
    backend.close()
