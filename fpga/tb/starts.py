"""Random starts of the accelerator: an image of its memory, its arguments, and what it must write.

The format is docs/fpga-registers.md's; the sums are retrieval_node/fixedpoint.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from made import Book, Maker, vector_of
from numpy.typing import NDArray

from retrieval_node.backends.fpga.records import LIST_WORDS, NO_MASK, result_bytes
from retrieval_node.backends.fpga.registers import VERSION, Flags, ListWord, ResultWord

PAGE, BEAT, POISON = 4096, 64, 0xEE
Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Shape:
    """A build and what is asked of it.

    Attributes:
        sizes: codes of each list of the index.
        distinct: values that codes take; few make ties.
        top: largest table entry; large ones saturate sums.
        masked: some lists have masks; biased: codes have biases.
        maker: the card makes the tables.
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
    masked: bool = False
    biased: bool = False
    maker: Maker | None = None

    @property
    def align(self) -> int:
        """Beats that lists start at multiples of: whole beats of 32 biases."""
        return self.m // 2 if self.biased else 1

    @property
    def lanes(self) -> int:
        return self.channels * BEAT // self.m


@dataclass
class Start:
    """Memory before the start, arguments by register name, and results wanted.

    Attributes:
        codes, biases: addresses per channel.
        wanted: per query, (sum, tag) nearest first.
        sizes: uint32 [queries, nprobe], codes of each descriptor.
        book: of which the card makes its tables.
    """

    shape: Shape
    memory: NDArray[np.uint8]
    book: Book | None = None
    arguments: dict[str, int] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    biases: list[int] = field(default_factory=list)
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


def make_start(
    shape: Shape, rng: np.random.Generator, memory_bytes: int = 1 << 20, book: Book | None = None
) -> Start:
    """A random start; some lists of a query are skipped, one of them its last.

    Args:
        book: what the card holds already; where it makes the tables and has none, it reads one.
    """
    start = Start(shape, np.full(memory_bytes, POISON, np.uint8))
    total = sum(shape.sizes)
    codes = rng.integers(0, shape.distinct, (total, shape.m)).astype(np.uint8)
    start.ids = rng.permutation(total).astype(np.uint32)
    entries, tables = _tables(shape, rng, start, book)
    lists = _describe(shape, rng, start)
    extra = _Extra.of(shape, rng, lists)
    image = _image(shape, codes)
    places = {
        "lists": lists.view(np.uint8).ravel(),
        **tables, "ids": start.ids.view(np.uint8),
        **{f"codes {c}": part for c, part in enumerate(image)},
        **extra.places(shape),
        "results": np.full(shape.queries * result_bytes(shape.k), POISON, np.uint8),
    }  # fmt: skip
    at = PAGE
    for name, part in places.items():
        start.memory[at : at + len(part)] = part
        if name.startswith("codes"):
            start.codes.append(at)
        elif name.startswith("biases"):
            start.biases.append(at)
        else:
            start.arguments[name] = at
        at += -(-len(part) // PAGE) * PAGE + PAGE
    assert at <= memory_bytes, "the start does not fit"
    start.arguments |= {
        "num_queries": shape.queries, "nprobe": shape.nprobe, "k": shape.k, "m": shape.m,
        "mode": int(shape.per_query), "metric": 0,
        "flags": _flags(shape, "codebook" in tables), "code_bytes": shape.m,
    }  # fmt: skip
    start.wanted = [
        _nearest(shape, lists[q], q, codes, entries, extra) for q in range(shape.queries)
    ]
    return start


def _flags(shape: Shape, reads_book: bool) -> Flags:
    flags = Flags.MASKS if shape.masked else Flags(0)
    flags |= Flags.BIASES if shape.biased else flags
    flags |= Flags.VECTORS if shape.maker else flags
    return flags | (Flags.CODEBOOK if reads_book else flags)


def _tables(
    shape: Shape, rng: np.random.Generator, start: Start, book: Book | None
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.uint8]]]:
    """Entries [tables, 256, m], and what memory holds of them: tables, or vectors."""
    count = shape.queries * (1 if shape.per_query else shape.nprobe)
    maker = shape.maker
    if maker is None:
        top = shape.top if shape.top is not None else (1 << shape.lw) - 1
        entries = rng.integers(0, top, (count, 256, shape.m), endpoint=True)
        dtype = np.uint16 if shape.lw == 16 else np.uint8
        return entries, {"tables": entries.astype(dtype).view(np.uint8).ravel()}
    start.book = book or Book.of(maker, rng)
    vectors = [
        vector_of(start.book, rng, int(rng.integers(0, 40)), int(rng.integers(30_000, 65_536)))
        for _ in range(count)
    ]
    shift = (maker.vector_beats * BEAT - 1).bit_length() + int(rng.integers(0, 2))
    records = np.full((count, 1 << shift), POISON, np.uint8)
    for row, one in zip(records, vectors, strict=True):
        row[: maker.vector_beats * BEAT] = one.record(maker, rng)
    start.arguments |= {
        "steps": maker.steps, "vector_beats": maker.vector_beats, "vector_shift": shift,
    }  # fmt: skip
    places = {"tables": records.ravel()}
    if book is None:
        places["codebook"] = start.book.record()
    return np.stack([one.table(start.book) for one in vectors]), places


def _first_beats(shape: Shape) -> list[int]:
    beats = [-(-n // (shape.lanes * shape.align)) * shape.align for n in shape.sizes]
    return [0, *np.cumsum(beats).tolist()]


def _image(shape: Shape, codes: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Each channel's codes, uint8 [rows, bytes of a slot]; slots past a list's end hold poison."""
    first, slots, width = _first_beats(shape), BEAT // shape.m, codes.shape[1]
    image = np.full((first[-1] + shape.align, shape.channels, slots, width), POISON, np.uint8)
    row = 0
    for number, n in enumerate(shape.sizes):
        part = image[first[number] : first[number + 1]].reshape(-1, width)
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


@dataclass(frozen=True)
class _Extra:
    """Masks, and biases of codes.

    Attributes:
        masks: uint8, a bit per code; biases: uint16 [rows]; words: uint16 [queries, 256, 2].
    """

    masks: NDArray[np.uint8]
    biases: NDArray[np.uint16]
    words: NDArray[np.uint16]

    @staticmethod
    def of(shape: Shape, rng: np.random.Generator, lists: Words) -> _Extra:
        """Random ones; mask words are written into the descriptors, one in four has none."""
        at = 0
        for query in lists:
            for word in query:
                if shape.masked and rng.random() < 0.75:
                    word[ListWord.MASK_WORD] = at
                    at += -(-int(word[ListWord.CODES]) // 64) + int(rng.integers(0, 2))
        masks = rng.integers(0, 256, 8 * at + BEAT, dtype=np.uint8)
        masks &= rng.integers(0, 256, len(masks), dtype=np.uint8) | 0x18
        biases = rng.integers(0, 1 << 16, sum(shape.sizes)).astype(np.uint16)
        words = rng.integers(0, 1 << 16, (shape.queries, 256, 2)).astype(np.uint16)
        return _Extra(masks, biases, words)

    def places(self, shape: Shape) -> dict[str, NDArray[np.uint8]]:
        found = {"masks": self.masks} if shape.masked else {}
        if shape.biased:
            found["bias_table"] = self.words.view(np.uint8).ravel()
            image = _image(shape, self.biases.view(np.uint8).reshape(-1, 2))
            found |= {f"biases {c}": part for c, part in enumerate(image)}
        return found

    def sums(self, query: int, tag: int, n: int) -> NDArray[np.int64]:
        own, words = self.biases[tag : tag + n], self.words[query].astype(np.int64)
        found: NDArray[np.int64] = words[own & 255, 0] + words[own >> 8, 1]
        return found

    def valid(self, word: int, n: int) -> NDArray[np.bool_]:
        if word == NO_MASK:
            return np.ones(n, np.bool_)
        bits = np.unpackbits(self.masks[8 * word :], bitorder="little")
        return bits[:n].astype(np.bool_)


def _nearest(
    shape: Shape, lists: Words, query: int, codes: NDArray[np.uint8], entries: NDArray[np.int64],
    extra: _Extra,
) -> list[tuple[int, int]]:  # fmt: skip
    """The k smallest (sum, tag) of a query."""
    found: list[tuple[int, int]] = []
    columns = np.arange(shape.m)
    for word in lists.tolist():
        n, tag = word[ListWord.CODES], word[ListWord.FIRST_TAG]
        table = entries[word[ListWord.TABLE]]
        sums = table[codes[tag : tag + n], columns[None, :]].sum(axis=1) + word[ListWord.BIAS]
        sums += extra.sums(query, tag, n) if shape.biased else 0
        sums = np.minimum(sums, (1 << shape.sw) - 1)
        valid = extra.valid(word[ListWord.MASK_WORD], n)
        found += zip(sums[valid].tolist(), np.arange(tag, tag + n)[valid].tolist(), strict=True)
    return sorted(found)[: shape.k]
