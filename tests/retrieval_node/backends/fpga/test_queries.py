"""Ten thousand random queries through driver and card equal the reference, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from ragschema.types import U8, Metric
from retrieval_node.backends.fpga.backend import FpgaBackend
from retrieval_node.backends.fpga.device import CardBuild
from retrieval_node.backends.fpga.driver import DriverConfig
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig
from retrieval_node.backends.fpga.registers import Flags
from retrieval_node.fixedpoint import Contract, TableMode, TablesBy
from tests.retrieval_node.backends.fpga.cards import Loaded, ask, expected, load
from tests.retrieval_node.native.contract_reference import Shape

BATCHES, BATCH = 10, 50
ALL = Flags.MASKS | Flags.BIASES | Flags.VECTORS | Flags.CODEBOOK
SIZES = ((70, 0, 1, 15, 16, 17, 130), (3, 64, 0, 65, 40, 1, 9))


@dataclass(frozen=True)
class Case:
    """One build and one index; 500 queries of each."""

    metric: Metric = Metric.L2
    mode: TableMode | None = None
    m: int = 8
    bits: int = 16
    k: int = 10
    build_m: int = 0
    channels: int = 4
    distinct: int = 256
    residual: bool = True
    deleted: bool = False
    features: Flags = ALL
    tables: TablesBy = TablesBy.HOST
    macs: int = 8
    sub: int = 2

    @property
    def contract(self) -> Contract:
        return Contract(self.bits, tables=self.tables)

    @property
    def device(self) -> EmulatedDevice:
        build = CardBuild(
            self.build_m, self.channels, self.bits, 24, 4096, self.features, self.macs, steps=4
        )
        return EmulatedDevice(EmulatorConfig(build=build, watchful=True))

    def loaded(self, seed: int) -> tuple[Loaded, U8 | None]:
        shape = Shape(self.metric, self.residual, self.m, self.sub, SIZES, self.distinct)
        loaded = load(shape, seed)
        if not self.deleted:
            return loaded, None
        valid = (np.random.default_rng(seed).random(loaded.rows) < 0.6).astype(np.uint8)
        return load(shape, seed, valid), valid


B, CARD = TableMode.PER_QUERY, TablesBy.CARD
CASES = [
    Case(),
    Case(bits=8),
    Case(m=16, k=1, build_m=16, channels=1),
    Case(m=12, k=100, build_m=16, channels=3),
    Case(m=3, bits=8, distinct=3),
    Case(m=64, build_m=64, channels=4),
    Case(residual=False, m=32, build_m=32, channels=2),
    Case(deleted=True),
    Case(deleted=True, features=Flags(0), k=3),
    Case(mode=B),
    Case(mode=B, bits=8, m=16, build_m=16, channels=1),
    Case(mode=B, m=5, k=400, channels=6, distinct=2),
    Case(mode=B, deleted=True, m=32, build_m=64, channels=1),
    Case(mode=B, residual=False),
    Case(Metric.IP, m=16, build_m=16),
    Case(Metric.IP, bits=8, distinct=4, k=5),
    Case(Metric.IP, m=80, channels=2, k=20),
    Case(Metric.IP, m=8, build_m=8, channels=32),
    Case(Metric.COSINE, m=48, bits=8, deleted=True),
    Case(Metric.IP, residual=False, k=700, distinct=2),
    Case(tables=CARD),
    Case(tables=CARD, bits=8, m=16, build_m=16, channels=1, sub=3, macs=2),
    Case(tables=CARD, m=12, build_m=16, k=100, channels=3, sub=8, deleted=True),
    Case(tables=CARD, m=3, distinct=3, sub=5, macs=4),
    Case(tables=CARD, residual=False, m=32, build_m=32, channels=2, sub=1, macs=1),
    Case(Metric.IP, tables=CARD, m=16, build_m=16, sub=4),
    Case(Metric.IP, tables=CARD, bits=8, distinct=4, k=5, sub=7),
    Case(Metric.COSINE, tables=CARD, m=48, deleted=True),
]


@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)))
def test_queries_equal_the_reference(number: int, case: Case) -> None:
    loaded, valid = case.loaded(seed=100 + number)
    contract, wrong = case.contract, []
    backend = FpgaBackend(case.device, contract, case.mode)
    backend.load(loaded.shard_set)
    for batch in range(BATCHES):
        request = ask(loaded, BATCH, 1 + batch % 7, case.k, seed=1000 * number + batch)
        found = backend.search(loaded.shard_set, request)
        for query in range(BATCH):
            distances, rows = expected(loaded, request, query, contract, case.mode, valid)
            count = int(found.counts[query])
            same = (
                count == len(rows)
                and found.rows[query, :count].tolist() == rows.tolist()
                and found.distances[query, :count].tobytes() == distances.tobytes()
            )
            wrong += [] if same else [(batch, query)]
    backend.close()
    assert not wrong, f"{len(wrong)} of {BATCHES * BATCH}, case {number}: {wrong[:5]}"
    assert backend.driver.counters.totals.queries == len(SIZES) * BATCHES * BATCH


def test_there_are_ten_thousand_of_them() -> None:
    assert len(CASES) * BATCHES * BATCH >= 10_000


@pytest.mark.parametrize("tables", TablesBy)
def test_ties_are_settled_by_the_host_where_the_card_cannot(tables: TablesBy) -> None:
    """All codes alike: every sum ties, and lists hold ids in no common order."""
    loaded = load(Shape(Metric.IP, False, 4, 2, ((200, 150),), distinct=1), 5)
    request = ask(loaded, 6, 2, 7, 1)
    request = replace(request, lists=np.tile(np.array([1, 0], np.int32), (6, 1)))
    device = EmulatedDevice()
    contract = Contract(tables=tables)
    backend = FpgaBackend(device, contract, config=DriverConfig(tie_slack=3))
    backend.load(loaded.shard_set)
    found = backend.search(loaded.shard_set, request)
    for query in range(6):
        _, rows = expected(loaded, request, query, contract, None)
        assert found.rows[query].tolist() == rows.tolist()
    assert backend.driver.counters.totals.host_queries == 6
    backend.close()
