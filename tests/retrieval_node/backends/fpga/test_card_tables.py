"""Tables made on the card, on every device that the driver's tests run on."""

from __future__ import annotations

import bisect
import gc
from dataclasses import replace
from typing import Any

import pytest

from ragschema.errors import DeviceFault, IncompatibleRequest, InvalidInput
from ragschema.types import Metric
from retrieval_node.backends.fpga import backend as fpga
from retrieval_node.backends.fpga.backend import FpgaBackend
from retrieval_node.backends.fpga.device import read_value, write_argument
from retrieval_node.backends.fpga.driver import CardDriver, DriverConfig
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig
from retrieval_node.backends.fpga.faults import Fault
from retrieval_node.backends.fpga.registers import REGISTERS, Ctrl, Error, Flags
from retrieval_node.fixedpoint import Contract, TableMode, TablesBy
from tests.retrieval_node.backends.fpga.cards import Loaded, ask, expected, load
from tests.retrieval_node.backends.fpga.test_driver import KINDS, SHAPE, open_card
from tests.retrieval_node.native.contract_reference import Shape

CARD = Contract(tables=TablesBy.CARD)
QUERIES, K = 9, 6


def opened(device: Any, loaded: Loaded, timeout_s: float = 30.0) -> FpgaBackend:
    backend = FpgaBackend(device, CARD, config=DriverConfig(timeout_s=timeout_s))
    backend.load(loaded.shard_set)
    return backend


def check(backend: FpgaBackend, loaded: Loaded, seed: int = 1) -> None:
    """Searches and compares every bit with the reference."""
    request = ask(loaded, QUERIES, 3, K, seed)
    found = backend.search(loaded.shard_set, request)
    for query in range(QUERIES):
        distances, rows = expected(loaded, request, query, CARD, None)
        count = int(found.counts[query])
        assert found.rows[query, :count].tolist() == rows.tolist()
        assert found.distances[query, :count].tobytes() == distances.tobytes()


@pytest.fixture
def loaded() -> Loaded:
    return load(SHAPE, 7)


@pytest.fixture
def device() -> EmulatedDevice:
    return EmulatedDevice(EmulatorConfig(watchful=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape",
    [
        SHAPE,
        replace(SHAPE, sub=9, m=6),
        replace(SHAPE, residual=False),
        Shape(Metric.IP, True, 8, 5, ((70, 0, 130, 9), (3, 40, 1, 64))),
    ],
)
def test_searches_equal_the_reference(kind: str, shape: Shape) -> None:
    loaded = load(shape, 3)
    card = open_card(kind, EmulatorConfig(watchful=True))
    backend = opened(card.device, loaded)
    for seed in range(3):
        check(backend, loaded, seed)
    backend.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_with_another_collections_codebook_reads_the_right_one(
    kind: str, loaded: Loaded
) -> None:
    other = load(replace(SHAPE, metric=Metric.IP, sub=3), 8)
    card = open_card(kind, EmulatorConfig(watchful=True))
    backend = opened(card.device, loaded)
    backend.load(other.shard_set)
    for one in (loaded, other, other, loaded):
        check(backend, one)
    backend.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_card_reads_its_codebook_again(kind: str, loaded: Loaded) -> None:
    card = open_card(kind, EmulatorConfig(watchful=True))
    backend = opened(card.device, loaded, timeout_s=2.0)
    check(backend, loaded)
    for fault in (Fault.HANG, Fault.AXI_READ):
        card.behind.faults.inject(fault)
        with pytest.raises(DeviceFault):
            check(backend, loaded)
        check(backend, loaded)
    assert backend.driver.counters.totals.resets == 2
    backend.close()


def test_a_codebook_is_read_once(device: EmulatedDevice, loaded: Loaded) -> None:
    backend, seen = opened(device, loaded), []
    for seed in range(3):
        check(backend, loaded, seed)
        seen.append(Flags(read_value(device, 0, "flags")))
    assert seen == [Flags.VECTORS | Flags.CODEBOOK, Flags.VECTORS, Flags.VECTORS]
    backend.close()


def test_a_codebook_at_an_address_that_another_had_is_read(
    device: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cards give freed memory out again; the emulated one is made to."""
    first = load(SHAPE, 7)
    backend = opened(device, first)
    check(backend, first)
    assert first.shard_set.index is not None
    book = backend.residents.book(first.shard_set.index)
    assert book is not None
    assert book.buffer is not None
    address = book.buffer.address
    del book, first
    gc.collect()
    real = device.allocate

    def allocate(nbytes: int, bank: int) -> Any:
        buffer = real(nbytes, bank)
        if nbytes == 256 * 192:
            device.memory._buffers[address] = device.memory._buffers.pop(buffer.address)
            device.memory._addresses.remove(buffer.address)
            bisect.insort(device.memory._addresses, address)
            buffer.address = address
        return buffer

    monkeypatch.setattr(device, "allocate", allocate)
    second = load(SHAPE, 8)
    backend.load(second.shard_set)
    check(backend, second)
    backend.close()


def test_far_less_is_sent_than_tables(device: EmulatedDevice, loaded: Loaded) -> None:
    by_host = FpgaBackend(device)
    by_host.load(loaded.shard_set)
    by_card, sent = opened(device, loaded), []
    for backend in (by_host, by_card):
        backend.search(loaded.shard_set, ask(loaded, QUERIES, 3, K, 1))
        before = backend.driver.counters.totals.sent_bytes
        backend.search(loaded.shard_set, ask(loaded, QUERIES, 3, K, 1))
        sent.append(backend.driver.counters.totals.sent_bytes - before)
    assert sent[1] < sent[0] / 8
    by_card.close()


def test_small_pieces_give_the_same_answer(
    device: EmulatedDevice, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fpga, "_PIECE_BYTES", 3000)
    backend = opened(device, loaded)
    check(backend, loaded)
    assert backend.driver.counters.totals.starts > 2
    backend.close()


def test_a_codebook_is_freed_with_the_last_index_that_needs_it(device: EmulatedDevice) -> None:
    loaded = load(SHAPE, 7)
    backend = opened(device, loaded)
    held = len(device.memory.buffers())
    del loaded
    gc.collect()
    assert held - len(device.memory.buffers()) == 6  # four channels, the ids, the codebook
    backend.close()


def test_turned_bits_of_a_codebook_are_found_and_mended(
    device: EmulatedDevice, loaded: Loaded
) -> None:
    backend = opened(device, loaded)
    backend.verify()
    assert loaded.shard_set.index is not None
    book = backend.residents.book(loaded.shard_set.index)
    assert book is not None
    assert book.buffer is not None
    device.memory.find(book.buffer.address)[0].flip(byte=70, bit=1)
    with pytest.raises(DeviceFault, match="a codebook is not what was uploaded"):
        backend.verify()
    check(backend, loaded)
    backend.verify()
    backend.close()


def test_a_codebook_that_was_not_synced_is_a_fault(
    device: EmulatedDevice, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, real = FpgaBackend(device, CARD), CardDriver.send

    def send(self: CardDriver, buffer: Any, nbytes: int) -> None:
        if nbytes != 256 * 192:  # norms and one word of eight columns, a codeword
            real(self, buffer, nbytes)

    monkeypatch.setattr(CardDriver, "send", send)
    backend.load(loaded.shard_set)
    with pytest.raises(DeviceFault, match="axi_read"):
        check(backend, loaded)
    backend.close()


def test_what_a_card_cannot_do_is_refused(loaded: Loaded) -> None:
    build = EmulatorConfig().build
    without = EmulatedDevice(
        EmulatorConfig(build=replace(build, features=Flags.MASKS | Flags.BIASES))
    )
    with pytest.raises(InvalidInput, match="makes no tables") as caught:
        FpgaBackend(without, CARD)
    assert caught.value.field == "tables"
    small = EmulatedDevice(EmulatorConfig(build=replace(build, macs=4, steps=2)))
    long = load(replace(SHAPE, sub=9), 1)
    with pytest.raises(IncompatibleRequest, match="9 components are longer than the 8"):
        FpgaBackend(small, CARD).load(long.shard_set)
    with pytest.raises(IncompatibleRequest, match="no tables of l2 in mode B"):
        FpgaBackend(small, CARD, TableMode.PER_QUERY).load(loaded.shard_set)
    with pytest.raises(IncompatibleRequest, match="longer than the card's"):
        FpgaBackend(EmulatedDevice(EmulatorConfig(build=replace(build, m=4))), CARD).load(
            loaded.shard_set
        )


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"steps": 65},
        {"vector_beats": 1},
        {"vector_shift": 5},
        {"vector_shift": 32},
        {"flags": int(Flags.CODEBOOK)},
        {"flags": int(Flags.VECTORS | Flags.BIASES), "mode": 1},
        {"flags": 16},
    ],
)
def test_arguments_that_cannot_be(
    device: EmulatedDevice, loaded: Loaded, change: dict[str, int]
) -> None:
    backend = opened(device, loaded)
    check(backend, loaded)
    for name, value in change.items():
        write_argument(device, 0, name, value)
    control = REGISTERS["ctrl"].offset
    device.write_register(0, control, int(Ctrl.START))
    while not device.read_register(0, control) & Ctrl.DONE:
        pass
    assert read_value(device, 0, "error") == Error.BAD_ARGUMENT
    backend.close()
