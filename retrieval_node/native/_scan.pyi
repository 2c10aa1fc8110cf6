"""The compiled scan. Arrays are C-contiguous; every call that works releases the GIL."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

Isa = Literal["avx512", "avx2", "portable"]

def machine_isas() -> list[Isa]:
    """Code paths this machine can run, best first; "portable" is always there."""

class Pool:
    """A fixed pool of worker threads; one search uses all of them.

    The calling thread works too, so ``threads`` 1 starts none. Several callers
    take turns by job. ``cpus`` pins worker i to cpus[i % len]; empty: no pinning.
    """

    def __init__(self, threads: int, cpus: list[int] = ...) -> None: ...
    @property
    def threads(self) -> int: ...

class Cancel:
    """Stops a search between pieces of work, from any thread."""

    def __init__(self, deadline_s: float | None = ...) -> None:
        """``deadline_s`` on time.monotonic()'s clock."""
    def set(self) -> None: ...

class Guard:
    """Verifies a mapped file's blocks as they are first touched.

    Args:
        file: the whole mapping, uint8.
        first: offset of the first checksummed byte.
        block_bytes: block i is bytes first + i * block_bytes up to the next
            block or the end of the file.
        crcs: uint32, zlib.crc32 of each block.
    """

    def __init__(self, file: U8, first: int, block_bytes: int, crcs: U32) -> None: ...
    def ensure(self, start: int, stop: int) -> int | None:
        """None when bytes start..stop-1 are sound; else the offset of the first bad block."""
    @property
    def verified_blocks(self) -> int: ...

class Index:
    """Centroids and codebooks. ``residual`` false: codes are of the vectors themselves."""

    def __init__(
        self,
        metric: Literal["l2", "ip"],
        centroids: F32,
        codebooks: F32,
        shift: F32,
        residual: bool = ...,
        isa: Isa | None = ...,
    ) -> None:
        """centroids [nlist, dim], codebooks [m, 256, dim / m], shift [dim].

        ``isa``: force a code path, for tests; None: the machine's best.
        """
    @property
    def isa(self) -> Isa: ...
    def coarse(self, queries: F32, nprobe: int, pool: Pool, *, reach: float | None = None) -> I32:
        """Nearest lists, nearest first, ties by number: [n, min(nprobe, nlist)]. Exact float32.

        ``reach``: lists whose squared distance is more than this many times the nearest
        one's are left out, -1 in their place; l2 only.
        """

class Segment:
    """One shard's rows of one segment, mapped or in memory; keeps its arrays alive.

    Args:
        list_offsets: int64 [nlist + 1] in rows; [0, n] for an exact segment.
        codes: uint8, grouped as layout.hpp says; None for an exact segment.
        bias: uint16 [padded rows]; bias_affine: float32 [nlist, 2] (base, step); l2 only.
        ids: uint32 [n], relative to row_start; every id is below row_count.
        vectors: float32 or float16 [n, dim] or None.
        guard: None: the arrays are known to be sound.
    """

    def __init__(
        self,
        index: Index | None,
        list_offsets: I64,
        codes: U8 | None,
        bias: U16 | None,
        bias_affine: F32 | None,
        ids: U32,
        row_start: int,
        row_count: int,
        vectors: NDArray[np.float32] | NDArray[np.float16] | None,
        guard: Guard | None,
    ) -> None: ...
    @property
    def rows(self) -> int: ...

class Found:
    """distances float32 [n, k], rows int64 [n, k], counts int32 [n]; zero past counts.

    ``stopped``: "" when it ran to its end, else "cancelled", "deadline" or
    "corrupt"; then the arrays mean nothing. ``corrupt_segment`` and
    ``corrupt_offset`` say where (position in ``segments``, byte in its file).
    """

    distances: F32
    rows: I64
    counts: I32
    codes_scanned: int
    survivors: int
    stopped: Literal["", "cancelled", "deadline", "corrupt"]
    corrupt_segment: int
    corrupt_offset: int

def search(
    index: Index,
    segments: list[Segment],
    queries: F32,
    lists: I32,
    k: int,
    pool: Pool,
    *,
    refine_k: int = ...,
    refine_queries: F32 | None = ...,
    live: U8 | None = ...,
    filters: U8 | None = ...,
    filter_of: I32 | None = ...,
    cancel: Cancel | None = ...,
    order: Literal["auto", "query", "list"] = ...,
) -> Found:
    """Mode ``fast``: float IVF-PQ, exactly; nearest by (distance, row id).

    Args:
        queries: [n, dim], rotated already. lists: [n, nprobe], -1 is padding.
        refine_k: 0: PQ distances; else the best refine_k are rescored with the
            segments' vectors (fixedpoint.exact_distances), by (distance, row id).
        refine_queries: the queries before rotation; None: ``queries`` are those.
        live: bitmap over row ids, bit set: not deleted; filters: [f, bytes];
            filter_of: [n], -1 none.
    """

def contract_search(
    index: Index,
    segments: list[Segment],
    queries: F32,
    lists: I32,
    k: int,
    pool: Pool,
    *,
    table_bits: int = ...,
    sum_bits: int = ...,
    integers: bool = ...,
    refine_k: int = ...,
    refine_queries: F32 | None = ...,
    live: U8 | None = ...,
    filters: U8 | None = ...,
    filter_of: I32 | None = ...,
    cancel: Cancel | None = ...,
) -> Found:
    """Mode ``contract16``: the bits of fixedpoint.py, whatever the code path and threads.

    integers: tables are those of fixedpoint_card.py.
    """

def contract_tables(
    index: Index,
    queries: F32,
    lists: I64,
    starts: I64,
    table_bits: int,
    sum_bits: int,
    tables: U16 | U8,
    biases: I64,
    bases: F64,
    scales: F32,
    width: int = ...,
    integers: bool = ...,
) -> None:
    """Tables and biases of a batch (the host's half); see kernels of the same contract.

    lists[starts[q]:starts[q + 1]] are query q's. tables: out, uint16
    [len(lists), m * 256] for l2, [n, m * 256] for ip. With a ``width``: uint8, the
    same tables as rows of so many entries of ``table_bits``, as ``card_tables`` makes.
    integers: as fixedpoint_card.py makes them.
    """

def contract_scan(
    jobs: I64,
    starts: I64,
    codes: U8,
    ids: U32,
    row_start: int,
    alive: U8,
    tables: U16,
    m: int,
    sum_max: int,
    sums: I64,
    rows: I64,
    counts: I32,
    isa: Isa | None = ...,
) -> int:
    """The device's half: k smallest per query by (sum, row id); returns codes scanned.

    jobs: int64 [j, 6]: byte offset in codes, rows, first row (into ids), table,
    bias, offset of the job's lane mask in ``alive`` in bits (-1: all lanes valid),
    a multiple of 64; masks are padded to whole blocks, see ``contract_masks``.
    starts: int64 [n + 1]. sums, rows: out [n, k]; counts: out [n]; what lies past
    counts is left alone. ValueError: a job outside its arrays.
    """

def rescore(
    segments: list[Segment],
    queries: F32,
    rows: I64,
    counts: I32,
    k: int,
    metric: Literal["l2", "ip"],
    pool: Pool,
    isa: Isa | None = ...,
) -> Found:
    """Exact distances of found rows (fixedpoint.exact_distances), the best k of them."""

def exact_search(
    segments: list[Segment],
    queries: F32,
    k: int,
    metric: Literal["l2", "ip"],
    pool: Pool,
    *,
    live: U8 | None = ...,
    filters: U8 | None = ...,
    filter_of: I32 | None = ...,
    cancel: Cancel | None = ...,
    isa: Isa | None = ...,
) -> Found:
    """Every live row against every query; bits of fixedpoint.exact_distances."""

def crc32(data: U8) -> int:
    """zlib.crc32."""

def contract_masks(
    jobs: I64,
    ids: U32,
    row_start: int,
    live: U8 | None,
    filters: U8 | None,
    filter_of: I64,
    out: U8 | None,
) -> int:
    """Lane masks of jobs as ``contract_scan`` reads them; returns their bytes.

    Bit i of a job's mask: row i is live and passes filter ``filter_of[job]`` (-1:
    none); each mask is padded to whole blocks of 64 bits. With ``out`` the masks
    are written one after the other and their offsets into the jobs.
    """

def ordinary(queries: F32) -> bool:
    """Whether every component is a number of ordinary size (fixedpoint.MAX_ABS)."""

def distinct_lists(lists: I32, nlist: int) -> bool:
    """Whether all are in -1..nlist-1 and no row names one twice (-1 aside)."""

def read_memory(data: U8, streams: int, ahead_bytes: int = ...) -> int:
    """Reads whole 4 KiB pieces with the widest loads; what a scan is measured against.

    ``streams`` (1, 2, 4, 8) places are read in turn; each prefetches ``ahead_bytes``.
    """

def card_tables(words: U16, m: int, width: int, entry_bits: int, out: U8) -> None:
    """Tables as the accelerator reads them (fpga/regs.toml).

    words: uint16 [t, m * 256], column by column; out: uint8, t tables of 256 rows
    of ``width`` entries; entries past m are 0.
    """

class CardBook:
    """A codebook in integers that a card has read from its memory."""

def read_card_book(image: U8, m: int, width: int, macs: int, steps: int) -> CardBook:
    """A codebook as ``card_book`` makes it; IndexError where the image is too short."""

def card_book(index: Index, width: int, macs: int, steps: int, out: U8) -> None:
    """The codebook in integers as the accelerator reads it (fpga/regs.toml).

    width: columns of a word, at least m; macs: components of a column in a word;
    steps: words per codeword. out: uint8, all of it.
    """

def card_vectors(
    index: Index,
    queries: F32,
    lists: I64,
    starts: I64,
    table_bits: int,
    sum_bits: int,
    width: int,
    macs: int,
    steps: int,
    stride: int,
    out: U8,
    biases: I64,
    bases: F64,
    scales: F32,
) -> None:
    """Vectors of a batch, of which the accelerator makes tables (fixedpoint_card.py).

    Arguments as ``contract_tables`` and ``card_book``; out: uint8, a record every
    ``stride`` bytes, per list with l2 and residuals, else per query.
    """

def card_scan(
    lists: U32,
    nprobe: int,
    tables: U8,
    m: int,
    width: int,
    entry_bits: int,
    code_words: U16 | None,
    image: U8,
    slots_per_beat: int,
    ids: U32,
    masks: U8 | None,
    sum_max: int,
    k: int,
    version: int,
    results: U8,
    done: I64,
    isa: Isa | None = ...,
    book: CardBook | None = ...,
    vector_stride: int = ...,
) -> int:
    """One start of the accelerator on the CPU; returns the codes of the descriptors.

    Args:
        lists: uint32 [n * nprobe, 8], records of fpga/regs.toml. tables: as
            ``card_tables`` makes them; with a book vectors, as ``card_vectors`` makes
            them, ``vector_stride`` bytes from one to the next.
        code_words: uint16 [n * 512], low byte's words first; None: no biases of codes.
        image: grouped codes by code slot (layout.hpp; list l from slot
            first_beat * slots_per_beat, a multiple of 64), m columns and, where
            there are code_words, the low and the high byte of the codes' biases.
        results: out, records of fpga/regs.toml; cycles are left 0.
        done: out, int64 [1], queries whose record is written.

    Raises:
        ValueError: an argument that no accelerator can do.
        IndexError: a list leads to memory that is not there.
    """
