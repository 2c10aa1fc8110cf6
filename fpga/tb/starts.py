"""Random starts of the accelerator: an image of its memory, its arguments, and what it must write.

The format is docs/fpga-registers.md's; the sums are retrieval_node/fixedpoint.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrieval_node.backends.fpga.records import LIST_WORDS, NO_MASK, result_bytes
from retrieval_node.backends.fpga.registers import VERSION, ListWord, ResultWord

PAGE, BEAT, POISON = 4096, 64, 0xEE
Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Shape:
    """A build and what is asked of it.

    Attributes:
        sizes: codes of each list of the index.
        distinct: values that codes take; few make ties.
        top: largest table entry; large ones saturate sums.
    """

    channels: int
    m: int
    lw: int
    sw: int
    queries: int
    nprobe: int
    k: int
    per_query: bool
    sizes: tuple[int, ...]
    distinct: int = 256
    top: int | None = None

    @property
    def lanes(self) -> int:
        return self.channels * BEAT // self.m


@dataclass
class Start:
    """Memory before the start, arguments by register name, and results wanted.

    Attributes:
        wanted: per query, (sum, tag) nearest first.
        sizes: uint32 [queries, nprobe], codes of each descriptor.
    """

    shape: Shape
    memory: NDArray[np.uint8]
    arguments: dict[str, int] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    ids: Words = field(default_factory=lambda: np.zeros(0, np.uint32))
    wanted: list[list[tuple[int, int]]] = field(default_factory=list)
    sizes: Words = field(default_factory=lambda: np.zeros((0, 0), np.uint32))

    def check(self, memory: NDArray[np.uint8]) -> None:
        """Compares results and everything else in memory, bit for bit.

        Raises:
            AssertionError: says which query differs, or that a byte elsewhere changed.
        """
        shape, k = self.shape, self.shape.k
        at, size = self.arguments["results"], result_bytes(self.shape.k)
        records = memory[at : at + shape.queries * size].reshape(shape.queries, size)
        for q, want in enumerate(self.wanted):
            head = records[q, :BEAT].view(np.uint32)
            assert head[ResultWord.VERSION] == VERSION
            assert head[ResultWord.ERROR] == 0
            assert head[ResultWord.QUERY] == q
            assert head[ResultWord.COUNT] == len(want)
            assert head[ResultWord.CODES_LOW] == self.sizes[q].sum()
            assert head[ResultWord.CYCLES_LOW] > 0
            entries = np.full((-(-k // 8) * 8, 2), 0xFFFFFFFF, np.uint32)
            for i, (total, tag) in enumerate(want):
                entries[i] = self.ids[tag], total
            found = records[q, BEAT:].view(np.uint32).reshape(-1, 2)
            np.testing.assert_array_equal(found, entries, f"query {q}")
        before, after = self.memory.copy(), memory.copy()
        before[at : at + shape.queries * size] = after[at : at + shape.queries * size] = 0
        assert (before == after).all(), "bytes outside the results changed"


def make_start(shape: Shape, rng: np.random.Generator, memory_bytes: int = 1 << 20) -> Start:
    """A random start; some lists of a query are skipped, one of them its last."""
    start = Start(shape, np.full(memory_bytes, POISON, np.uint8))
    total = sum(shape.sizes)
    codes = rng.integers(0, shape.distinct, (total, shape.m)).astype(np.uint8)
    start.ids = rng.permutation(total).astype(np.uint32)
    tables_count = shape.queries * (1 if shape.per_query else shape.nprobe)
    top = shape.top if shape.top is not None else (1 << shape.lw) - 1
    entries = rng.integers(0, top, (tables_count, 256, shape.m), endpoint=True)
    lists = _describe(shape, rng, start)
    image = _image(shape, codes)
    dtype = np.uint16 if shape.lw == 16 else np.uint8
    places = {
        "lists": lists.view(np.uint8).ravel(),
        "tables": entries.astype(dtype).view(np.uint8).ravel(),
        "ids": start.ids.view(np.uint8), **{f"codes {c}": part for c, part in enumerate(image)},
        "results": np.full(shape.queries * result_bytes(shape.k), POISON, np.uint8),
    }  # fmt: skip
    at = PAGE
    for name, part in places.items():
        start.memory[at : at + len(part)] = part
        if name.startswith("codes"):
            start.codes.append(at)
        else:
            start.arguments[name] = at
        at += -(-len(part) // PAGE) * PAGE + PAGE
    assert at <= memory_bytes, "the start does not fit"
    start.arguments |= {
        "num_queries": shape.queries, "nprobe": shape.nprobe, "k": shape.k, "m": shape.m,
        "mode": int(shape.per_query), "metric": 0, "flags": 0, "code_bytes": shape.m,
    }  # fmt: skip
    start.wanted = [_nearest(shape, lists[q], codes, entries) for q in range(shape.queries)]
    return start


def _first_beats(shape: Shape) -> list[int]:
    beats = [-(-n // shape.lanes) for n in shape.sizes]
    return [0, *np.cumsum(beats).tolist()]


def _image(shape: Shape, codes: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Each channel's codes; slots past a list's end hold poison, which must not be scanned."""
    first, slots = _first_beats(shape), BEAT // shape.m
    image = np.full((first[-1] + 1, shape.channels, slots, shape.m), POISON, np.uint8)
    row = 0
    for number, n in enumerate(shape.sizes):
        part = image[first[number] : first[number + 1]].reshape(-1, shape.m)
        part[:n] = codes[row : row + n]
        row += n
    return [image[:, c].ravel() for c in range(shape.channels)]


def _describe(shape: Shape, rng: np.random.Generator, start: Start) -> Words:
    """Descriptors [queries, nprobe, words]."""
    first, tags = _first_beats(shape), np.cumsum([0, *shape.sizes])
    lists = np.zeros((shape.queries, shape.nprobe, LIST_WORDS), np.uint32)
    for q in range(shape.queries):
        own = rng.permutation(len(shape.sizes))[: shape.nprobe]
        for p, number in enumerate(own.tolist()):
            skipped = rng.random() < 0.15
            table = q if shape.per_query else q * shape.nprobe + p
            lists[q, p, ListWord.FIRST_BEAT] = first[number]
            lists[q, p, ListWord.CODES] = 0 if skipped else shape.sizes[number]
            lists[q, p, ListWord.FIRST_TAG] = tags[number]
            lists[q, p, ListWord.BIAS] = rng.integers(0, 1 << 16)
            lists[q, p, ListWord.MASK_WORD] = NO_MASK
            lists[q, p, ListWord.TABLE] = table
    if shape.queries > 1:  # a query whose lists are all empty, and a bias beyond the sums
        lists[1, :, ListWord.CODES] = 0
        lists[-1, 0, ListWord.BIAS] = 0xFFFFFFF0
    start.sizes = lists[:, :, ListWord.CODES]
    return lists


def _nearest(
    shape: Shape, lists: Words, codes: NDArray[np.uint8], entries: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """The k smallest (sum, tag) of a query."""
    found: list[tuple[int, int]] = []
    columns = np.arange(shape.m)
    for word in lists.tolist():
        n, tag = word[ListWord.CODES], word[ListWord.FIRST_TAG]
        table = entries[word[ListWord.TABLE]]
        sums = table[codes[tag : tag + n], columns[None, :]].sum(axis=1) + word[ListWord.BIAS]
        sums = np.minimum(sums, (1 << shape.sw) - 1)
        found += zip(sums.tolist(), range(tag, tag + n), strict=True)
    return sorted(found)[: shape.k]
