"""Codebooks and vectors in a card's memory: the layout, and tables on every code path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ragschema.types import F32, I64, U8, Metric
from retrieval_node.fixedpoint import Contract
from retrieval_node.fixedpoint_card import IntegerBook, Vectors, make_tables, query_vectors
from retrieval_node.native.loader import require_native
from retrieval_node.shard_files import IvfIndex, make_index
from tests.retrieval_node.native.test_card import given, scan

ISAS = require_native().machine_isas()
STARTS = np.array([0, 3, 3, 4], dtype=np.int64)
LISTS = np.array([2, 0, 1, 3], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Made:
    """An index, three queries over LISTS, and widths of a card."""

    index: IvfIndex
    codebooks: F32
    queries: F32
    width: int
    macs: int
    steps: int

    @property
    def code_bytes(self) -> int:
        return -(-self.width * 4 // 64) * 64 + self.steps * self.width * self.macs * 2

    @property
    def per_list(self) -> bool:
        return self.index.metric is Metric.L2 and self.index.residual

    @property
    def layout(self) -> tuple[int, int, int]:
        return self.width, self.macs, self.steps


def make(m: int, sub: int, width: int, macs: int, metric: Metric = Metric.L2) -> Made:
    rng = np.random.default_rng(m * sub)
    centroids = rng.normal(size=(4, m * sub)).astype(np.float32)
    codebooks = rng.normal(size=(m, 256, sub)).astype(np.float32)
    queries = rng.normal(size=(3, m * sub)).astype(np.float32)
    return Made(
        make_index(metric, centroids, codebooks), codebooks, queries, width, macs, -(-sub // macs)
    )


def book_image(made: Made) -> U8:
    image = np.full(256 * made.code_bytes, 0xEE, dtype=np.uint8)
    require_native().card_book(made.index.handle, *made.layout, image)
    return image


def vectors_of(made: Made, bits: int, stride: int) -> tuple[U8, I64, Any, F32]:
    n = len(LISTS) if made.per_list else 3
    out = np.full(n * stride, 0xEE, dtype=np.uint8)
    biases, bases, scales = np.empty(4, np.int64), np.empty(3), np.empty(3, np.float32)
    require_native().card_vectors(
        made.index.handle, made.queries, LISTS, STARTS, bits, 24, *made.layout, stride, out,
        biases, bases, scales,
    )  # fmt: skip
    return out, biases, bases, scales


def reference(made: Made, bits: int) -> list[Vectors]:
    book, contract = IntegerBook.of(made.codebooks), Contract(bits)
    return [
        query_vectors(
            made.queries[q], made.index.centroids[LISTS[STARTS[q] : STARTS[q + 1]]], book,
            made.index.metric, contract,
        )
        for q in range(3)
    ]  # fmt: skip


def components(words: U8, made: Made, m: int, sub: int) -> Any:
    """int16 [m, sub], and that the rest of the words is zero."""
    raw = words.view(np.int16).reshape(made.steps, made.width, made.macs)
    columns = raw.transpose(1, 0, 2).reshape(made.width, -1)
    assert not columns[m:].any()
    assert not columns[:, sub:].any()
    return columns[:m, :sub]


SHAPES = [(8, 8, 8, 8), (5, 3, 8, 4), (12, 7, 16, 2), (16, 8, 16, 8), (32, 1, 32, 1)]


@pytest.mark.parametrize(("m", "sub", "width", "macs"), SHAPES)
def test_a_codebook_lies_as_the_registers_say(m: int, sub: int, width: int, macs: int) -> None:
    made = make(m, sub, width, macs)
    codes = book_image(made).reshape(256, made.code_bytes)
    book, columns = IntegerBook.of(made.codebooks), made.code_bytes - 2 * width * macs * made.steps
    for c in (0, 1, 255):
        norms = codes[c, :columns].view(np.int32)
        assert norms[:m].tolist() == book.norms[:, c].tolist()
        assert not norms[m:].any()
        found = components(codes[c, columns:].copy(), made, m, sub)
        np.testing.assert_array_equal(found, book.components[:, c])


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("m", "sub", "width", "macs"), SHAPES)
def test_vectors_lie_as_the_registers_say(
    m: int, sub: int, width: int, macs: int, bits: int, metric: Metric
) -> None:
    made = make(m, sub, width, macs, metric)
    stride = 64 + made.code_bytes + 64
    out, biases, bases, scales = vectors_of(made, bits, stride)
    records, columns = out.reshape(-1, stride), made.code_bytes - 2 * width * macs * made.steps
    for q, want in enumerate(reference(made, bits)):
        own = slice(STARTS[q], STARTS[q + 1])
        assert biases[own].tolist() == want.biases.tolist()
        assert (bases[q], scales[q]) == (want.base, want.scale)
        for v in range(len(want.components)):
            record = records[STARTS[q] + v if made.per_list else q]
            head, lows = record[:64].view(np.uint32), record[64 : 64 + columns].view(np.int32)
            assert head[:3].tolist() == [want.norm_shift, want.sum_shift, want.factor]
            assert lows[:m].tolist() == want.lows[v].tolist()
            assert not lows[m:].any()
            words = record[64 + columns : 64 + made.code_bytes].copy()
            found = components(words, made, m, sub)
            np.testing.assert_array_equal(found.reshape(-1), want.components[v])
            assert (record[64 + made.code_bytes :] == 0xEE).all()


def made_case(made: Made, bits: int) -> dict[str, Any]:
    """test_card's start, with the vectors of three lists of one query in place of tables."""
    case = given(3, made.index.m, made.width, bits, False, False)
    book = require_native().read_card_book(
        book_image(made), made.index.m, made.width, made.macs, made.steps
    )
    stride = 1024
    out, *_ = vectors_of(made, bits, stride)
    return case | {"tables": out, "book": book, "vector_stride": stride}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("m", "sub", "width", "macs"), [(16, 8, 16, 8), (5, 3, 8, 4)])
def test_tables_made_in_the_scan_are_the_references(
    isa: str, bits: int, m: int, sub: int, width: int, macs: int
) -> None:
    made = make(m, sub, width, macs)
    case = made_case(made, bits)
    scan(case, isa)
    words = make_tables(IntegerBook.of(made.codebooks), reference(made, bits)[0], bits)
    rows = np.zeros((3, 256, width), np.uint16 if bits == 16 else np.uint8)
    rows[:, :, :m] = words.transpose(0, 2, 1)
    loaded = given(3, m, width, bits, False, False) | {"tables": rows.reshape(-1).view(np.uint8)}
    scan(loaded, isa)
    assert case["results"].tobytes() == loaded["results"].tobytes()


@pytest.mark.parametrize("isa", ISAS)
def test_numbers_that_no_host_sends_give_the_same_on_every_path(isa: str) -> None:
    """Components of -32768 and offsets above the sums wrap modulo 2^32, as in hardware."""
    made = make(8, 2, 8, 8)
    case, stride = made_case(made, 16), 1024
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, 256 * made.code_bytes, dtype=np.uint8)
    image.reshape(256, made.code_bytes)[:, 64:].view(np.int16)[::3] = -32768
    book = require_native().read_card_book(image, 8, 8, 8, made.steps)
    tables = rng.integers(0, 256, case["tables"].size, dtype=np.uint8)
    tables.reshape(-1, stride)[:, :4].view(np.uint32)[:] = [[7], [31], [200], [0]]
    case |= {"book": book, "tables": tables}
    scan(case, isa)
    other = case | {"results": np.empty_like(case["results"])}
    scan(other, "portable")
    assert case["results"].tobytes() == other["results"].tobytes()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"vector_stride": 64}, ValueError, "vector_stride"),
        ({"m": 15}, ValueError, "book: it has another m"),
        ({"code_words": np.zeros(3 * 512, np.uint16)}, ValueError, "book: with biases"),
        ({"tables": np.zeros(2047, np.uint8)}, IndexError, "a table"),
    ],
)
def test_starts_that_cannot_be(change: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        scan(made_case(make(16, 8, 16, 8), 16) | change, "portable")


@pytest.mark.parametrize(
    ("width", "macs", "steps", "match"),
    [(4, 8, 1, "width"), (8, 1, 8, "whole beats"), (8, 8, 0, "steps"), (8, 0, 1, "macs"),
     (8, 4, 1, "too few for the components")],
)  # fmt: skip
def test_layouts_that_cannot_be(width: int, macs: int, steps: int, match: str) -> None:
    made = make(8, 8, 8, 8)
    with pytest.raises(ValueError, match=match):
        require_native().card_book(
            made.index.handle, width, macs, steps, np.empty(1 << 20, np.uint8)
        )


def test_a_codebook_that_memory_ends_in_is_refused() -> None:
    with pytest.raises(IndexError, match="ends in the codebook"):
        require_native().read_card_book(np.zeros(1000, np.uint8), 8, 8, 8, 1)
