"""Whole queries through driver, AXI memory and the RTL, against the emulated card, bit for bit."""

from __future__ import annotations

import argparse
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.numerics import make_collection
from bench.rtl_cycles import BUILDS, Shape, ask, card_of, differing, make_index_of, open_both
from coordinator.ingest.stdlib_corpus import write_corpus
from ragschema.types import F32, EmbedPurpose, Metric
from retrieval_node.backends.fpga.backend import FpgaBackend
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig
from retrieval_node.backends.fpga.verilator_build import MemoryTiming, RtlBuild
from retrieval_node.backends.fpga.verilator_device import VerilatorConfig, VerilatorDevice
from retrieval_node.fixedpoint import Contract, TablesBy
from retrieval_node.local import LocalSearcher

pytestmark = [
    pytest.mark.rtl,
    pytest.mark.skipif(
        shutil.which("verilator") is None,
        reason="verilator is not installed: apt-get install verilator",
    ),
]
CHUNKS, WORDS, QUERIES = 420, 16, 12
WIDE, NARROW = BUILDS[0], RtlBuild(2, 32, table_bits=8, sum_bits=20, k_max=32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[F32, F32]:
    """Passages of the demo's corpus and questions, embedded: float32 [n, 384], unit length."""
    from llm_node.embed import encoder
    from llm_node.embed.scheduler import embed_now

    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    texts: list[str] = []
    for path in sorted(folder.glob("*.md")):
        words = re.split(r"\s+", path.read_text(encoding="utf-8"))
        texts += [" ".join(words[at : at + WORDS]) for at in range(0, 4 * WORDS, WORDS)]
    assert len(texts) >= CHUNKS
    minilm = encoder.load("minilm")
    stored = embed_now(minilm, texts[:CHUNKS], EmbedPurpose.PASSAGE).vectors
    asked = [" ".join(text.split()[:6]) + "?" for text in texts[: CHUNKS : CHUNKS // QUERIES]]
    return stored, embed_now(minilm, asked, EmbedPurpose.QUERY).vectors


@pytest.mark.parametrize("tables", list(TablesBy))
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize(
    "build", [WIDE, pytest.param(NARROW, marks=pytest.mark.slow)], ids=["16-lanes", "8-bit"]
)
def test_a_real_index_gives_the_emulators_bits(
    build: RtlBuild, metric: Metric, tables: TablesBy, corpus: tuple[F32, F32], tmp_path: Path
) -> None:
    stored, queries = corpus
    directory = tmp_path / "demo"
    given = argparse.Namespace(nlist=16, m=build.m, seed=1, metric=metric)
    make_collection(directory, stored, given)
    timing = MemoryTiming(latency_cycles=90, beats_per_cycle=0.85, pause_share=0.1, seed=5)
    contract = Contract(build.table_bits, build.sum_bits, tables)
    found = []
    for device in (
        VerilatorDevice(VerilatorConfig(build, timing=timing)),
        EmulatedDevice(EmulatorConfig(build=card_of(build))),
    ):
        searcher = LocalSearcher(directory, FpgaBackend(device, contract))
        found.append(searcher.search(searcher.batch(queries, 20, 5)))
        searcher.close()
    rtl, emulator = found
    assert (rtl.row_ids >= 0).sum() > 10 * len(queries), "lists are nearly empty"
    np.testing.assert_array_equal(rtl.row_ids, emulator.row_ids)
    assert rtl.distances.tobytes() == emulator.distances.tobytes()


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_a_million_codes(metric: Metric, record_property: Callable[[str, object], None]) -> None:
    """Every lane is busy for 32 768 cycles of a query; two queries of 32 lists."""
    shape = Shape(WIDE, 17_000, 32, 100, metric, queries=2, spread=0.1)
    held, (rtl, emulator) = make_index_of(shape, seed=3), open_both(WIDE)
    for backend in (rtl, emulator):
        backend.load(held)
    request = ask(shape, 4, shape.nprobe)
    began = time.perf_counter()
    found = rtl.search(held, request)
    seconds = time.perf_counter() - began
    totals = rtl.driver.counters.totals
    record_property("codes_per_s", round(totals.codes / seconds))
    assert differing(found, emulator.search(held, request)) == 0
    assert totals.codes >= 1_000_000
    assert totals.codes / totals.cycles > 0.93 * WIDE.lanes
    for backend in (rtl, emulator):
        backend.close()
