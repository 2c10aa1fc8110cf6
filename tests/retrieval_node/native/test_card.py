"""The accelerator's memory format and scan in C++ against the reference, on every code path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrieval_node.backends.fpga.records import NO_MASK, read_answer, result_bytes
from retrieval_node.backends.fpga.registers import VERSION
from retrieval_node.layout import group_list
from retrieval_node.native.loader import require_native

ISAS = require_native().machine_isas()
SUM_MAX = (1 << 24) - 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("m", "width"), [(1, 8), (8, 8), (12, 16), (16, 16), (63, 64), (96, 128)])
def test_tables_are_rows_of_columns(m: int, width: int, bits: int) -> None:
    rng = np.random.default_rng(m * bits)
    words = rng.integers(0, 1 << bits, (3, m * 256)).astype(np.uint16)
    out = np.full(3 * 256 * width * bits // 8 + 5, 0xEE, dtype=np.uint8)
    require_native().card_tables(words, m, width, bits, out)
    rows = out[:-5].view(np.uint16 if bits == 16 else np.uint8).reshape(3, 256, width)
    want = words.reshape(3, m, 256).transpose(0, 2, 1)
    np.testing.assert_array_equal(rows[:, :, :m], want)
    assert not rows[:, :, m:].any()
    assert (out[-5:] == 0xEE).all()


def given(seed: int, m: int, width: int, bits: int, biased: bool, masked: bool) -> dict[str, Any]:
    """Three queries over three lists of 100, 0 and 64 codes, the second skipped by one."""
    rng = np.random.default_rng(seed)
    columns, sizes, starts = m + 2 * biased, (100, 64), (0, 128)
    codes = [rng.integers(0, 256, (n, columns), dtype=np.uint8) for n in sizes]
    words = rng.integers(0, 1 << bits, (4, m * 256)).astype(np.uint16)
    tables = np.empty(4 * 256 * width * bits // 8, np.uint8)
    require_native().card_tables(words, m, width, bits, tables)
    image = np.zeros(192 * columns, np.uint8)
    for at, part in zip(starts, codes, strict=True):
        grouped = group_list(part)
        image[at * columns : at * columns + len(grouped)] = grouped
    lists = np.zeros((9, 8), np.uint32)
    for q in range(3):
        lists[3 * q + 0] = (8, 64, 100, 5 + q, 2 if masked else NO_MASK, q, 0, 0)
        lists[3 * q + 2] = (0, 100, 0, 3, 0 if masked else NO_MASK, q + (q == 1), 0, 0)
    return {
        "lists": lists, "nprobe": 3, "tables": tables, "m": m, "width": width, "entry_bits": bits,
        "code_words": rng.integers(0, 65536, 3 * 512).astype(np.uint16) if biased else None,
        "image": image, "slots_per_beat": 16, "ids": rng.permutation(164).astype(np.uint32),
        "masks": rng.integers(0, 256, 24, dtype=np.uint8) if masked else None,
        "sum_max": SUM_MAX, "k": 20, "version": VERSION,
        "results": np.empty(3 * result_bytes(20), np.uint8), "done": np.zeros(1, np.int64),
        "codes": codes, "words": words,
    }  # fmt: skip


def reference(case: dict[str, Any], q: int) -> list[tuple[int, int]]:
    """(sum, tag) of a query's k nearest."""
    found = []
    for word in case["lists"][3 * q : 3 * q + 3].tolist():
        beat, n, tag, bias, mask_word, table = word[:6]
        if n == 0:
            continue
        codes = case["codes"][0 if beat == 0 else 1]
        columns = case["words"][table].reshape(case["m"], 256)
        for i, code in enumerate(codes.tolist()):
            if case["masks"] is not None and not (
                case["masks"][mask_word * 8 + i // 8] >> (i % 8) & 1
            ):
                continue
            total = bias + sum(int(columns[j, code[j]]) for j in range(case["m"]))
            if case["code_words"] is not None:
                extra = case["code_words"].reshape(3, 2, 256)[q]
                total += int(extra[0, code[-2]]) + int(extra[1, code[-1]])
            found.append((min(total, case["sum_max"]), tag + i))
    return sorted(found)[: case["k"]]


def scan(case: dict[str, Any], isa: str) -> int:
    """Runs a case; ``codes`` and ``words`` are for its reference."""
    own = {name: value for name, value in case.items() if name not in ("codes", "words")}
    return int(require_native().card_scan(**own, isa=isa))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("m", "width", "bits"), [(16, 16, 16), (5, 8, 16), (20, 32, 8)])
def test_a_start_equals_the_reference(
    isa: str, biased: bool, masked: bool, m: int, width: int, bits: int
) -> None:
    case = given(m + bits, m, width, bits, biased, masked)
    assert scan(case, isa) == 3 * 164
    assert case["done"].tolist() == [3]
    found = read_answer(case["results"], 3, 20, SUM_MAX, 164)
    for q in range(3):
        want = reference(case, q)
        count = int(found.counts[q])
        assert found.sums[q, :count].tolist() == [total for total, _ in want]
        assert found.ids[q, :count].tolist() == [int(case["ids"][tag]) for _, tag in want]
        assert (found.ids[q, count:] == 0xFFFFFFFF).all()


@pytest.mark.parametrize("isa", ISAS)
def test_sums_saturate(isa: str) -> None:
    case = given(1, 16, 16, 16, True, False) | {"sum_max": 500_000}
    scan(case, isa)
    found = read_answer(case["results"], 3, 20, 500_000, 164)
    assert found.sums[0].tolist() == [total for total, _ in reference(case, 0)]
    assert case["lists"][0, 3] + 5 < 500_000
    assert max(total for total, _ in reference(case | {"k": 164}, 0)) == 500_000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"nprobe": 2}, "nprobe"),
        ({"m": 17}, "m:"),
        ({"entry_bits": 12}, "entry_bits"),
        ({"k": 0}, "k:"),
        ({"k": 33}, "results"),
        ({"sum_max": 1 << 24}, "sum_max"),
        ({"slots_per_beat": 0}, "slots_per_beat"),
        ({"code_words": np.zeros(5, np.uint16)}, "code_words"),
        ({"done": np.zeros(2, np.int64)}, "done"),
    ],
)
def test_arguments_that_cannot_be(change: dict[str, Any], match: str) -> None:
    case = given(1, 16, 16, 16, False, False) | change
    with pytest.raises(ValueError, match=match):
        scan(case, "portable")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image": np.zeros(100 * 16, np.uint8)}, "codes beyond"),
        ({"ids": np.zeros(100, np.uint32)}, "tags beyond"),
        ({"tables": np.zeros(8191, np.uint8)}, "a table"),
        ({"masks": np.zeros(8, np.uint8)}, "a mask"),
    ],
)
def test_memory_that_is_not_there(change: dict[str, Any], match: str) -> None:
    case = given(1, 16, 16, 16, False, True) | change
    with pytest.raises(IndexError, match=match):
        scan(case, "portable")
    assert case["done"].tolist() == [0]
