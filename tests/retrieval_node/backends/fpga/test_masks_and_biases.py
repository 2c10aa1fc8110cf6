"""Rows masked on the card, and biases of codes, on every device that the driver's tests run on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from ragschema.types import U8, Metric
from retrieval_node.backends.base import ScanRequest
from retrieval_node.backends.fpga.backend import FpgaBackend
from retrieval_node.backends.fpga.emulator import EmulatorConfig
from retrieval_node.backends.fpga.registers import Flags
from retrieval_node.fixedpoint import Contract, TableMode
from tests.retrieval_node.backends.fpga.cards import Loaded, ask, expected, load
from tests.retrieval_node.backends.fpga.test_driver import KINDS, open_card
from tests.retrieval_node.native.contract_reference import Shape

#: Around the 32 lanes of the RTL, and a mask of more than 512 bits.
SIZES = ((70, 0, 31, 32, 33, 1, 700), (5, 64, 96, 0, 1, 600, 40))
K, QUERIES = 9, 8


@dataclass(frozen=True)
class Case:
    """An index and what is asked of it.

    Attributes:
        filtered: every third query sees all rows, the others one of two filters.
    """

    metric: Metric
    mode: TableMode | None
    deleted: bool = False
    filtered: bool = False
    distinct: int = 256


CASES = [
    Case(Metric.L2, TableMode.PER_QUERY),
    Case(Metric.L2, TableMode.PER_QUERY, deleted=True, filtered=True),
    Case(Metric.L2, TableMode.PER_QUERY, distinct=2),
    Case(Metric.L2, None, deleted=True),
    Case(Metric.L2, None, filtered=True),
    Case(Metric.IP, None, deleted=True, filtered=True, distinct=3),
]


def filters_of(loaded: Loaded, rng: np.random.Generator) -> list[U8]:
    """Bytes per row: half of the rows, and nearly none."""
    return [(rng.random(loaded.rows) < share).astype(np.uint8) for share in (0.5, 0.02)]


def differing(backend: FpgaBackend, loaded: Loaded, request: ScanRequest, case: Case,
              valid: list[U8 | None]) -> list[int]:  # fmt: skip
    """Queries whose results are not the reference's."""
    found, wrong = backend.search(loaded.shard_set, request), []
    for query in range(QUERIES):
        wanted = expected(loaded, request, query, Contract(), case.mode, valid[query])
        count = int(found.counts[query])
        same = found.rows[query, :count].tolist() == wanted[1].tolist()
        same &= found.distances[query, :count].tobytes() == wanted[0].tobytes()
        wrong += [] if same else [query]
    return wrong


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.metric.value}-{CASES.index(c)}")
def test_the_card_scans_them_itself(kind: str, case: Case) -> None:
    rng = np.random.default_rng(4)
    shape = Shape(case.metric, True, 8, 2, SIZES, case.distinct)
    rows = load(shape, 11).rows
    live = (rng.random(rows) < 0.7).astype(np.uint8) if case.deleted else None
    loaded = load(shape, 11, live)
    card = open_card(kind, EmulatorConfig(watchful=True))
    backend = FpgaBackend(card.device, mode=case.mode)
    backend.load(loaded.shard_set)
    filters = filters_of(loaded, rng)
    of_query = np.arange(QUERIES, dtype=np.int32) % 3 - 1
    for seed in range(3):
        request = ask(loaded, QUERIES, 2 + seed, K, seed)
        valid: list[U8 | None] = [live] * QUERIES
        if case.filtered:
            bitmaps = np.stack([np.packbits(one, bitorder="little") for one in filters])
            request = replace(request, filters=bitmaps, filter_of=of_query)
            valid = [
                live if f < 0 else filters[f] & (1 if live is None else live) for f in of_query
            ]
        assert differing(backend, loaded, request, case, valid) == [], f"seed {seed}"
    settled_by_host = backend.driver.counters.totals.host_queries
    assert settled_by_host == 0 or case.distinct < 256, "the host scanned"
    assert Flags.MASKS | Flags.BIASES in backend.driver.build.features
    backend.close()
