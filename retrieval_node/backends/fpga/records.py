"""Records of the card's memory: list descriptors out, results back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ragschema.types import I64, U8
from retrieval_node.backends.fpga.registers import (
    ENTRY_BYTES,
    LIST_BYTES,
    RESULT_BYTES,
    VERSION,
    EntryWord,
    Error,
    ResultWord,
)

U32 = NDArray[np.uint32]

LIST_WORDS: Final = LIST_BYTES // 4
NO_MASK: Final = 0xFFFFFFFF
_BEAT: Final = 64


def result_bytes(k: int) -> int:
    """Bytes of one query's results: a head, then entries in whole beats."""
    return RESULT_BYTES + -(-k * ENTRY_BYTES // _BEAT) * _BEAT


@dataclass(frozen=True, eq=False)
class Answer:
    """Results of one start; what lies past counts is the largest value.

    Attributes:
        sums, ids: uint32 [n, k], nearest first by (sum, tag).
        counts: int64 [n].
        cycles: int64 [n].
        codes: of the descriptors, over all queries.
    """

    sums: U32
    ids: U32
    counts: I64
    cycles: I64
    codes: int


class WrongAnswer(Exception):
    """Results that no sound card gives."""


def read_answer(raw: U8, n: int, k: int, sum_max: int, rows: int) -> Answer:
    """Parses results and checks all that the host can.

    Args:
        raw: uint8 [n * result_bytes(k)].
        rows: ids are below it.

    Raises:
        WrongAnswer: says what is wrong, and with which query.
    """
    records = raw.reshape(n, result_bytes(k))
    heads = records[:, :RESULT_BYTES].view(np.uint32)
    entries = records[:, RESULT_BYTES : RESULT_BYTES + k * ENTRY_BYTES].view(np.uint32)
    entries = entries.reshape(n, k, 2)
    sums, ids = entries[:, :, EntryWord.SUM], entries[:, :, EntryWord.ID]
    counts = heads[:, ResultWord.COUNT].astype(np.int64)
    valid = np.arange(k)[None, :] < counts[:, None]
    wrong = {
        "version": heads[:, ResultWord.VERSION] >> 16 != VERSION >> 16,
        "query number": heads[:, ResultWord.QUERY] != np.arange(n),
        "error code": heads[:, ResultWord.ERROR] != int(Error.NONE),
        "count": counts > k,
        "order": (valid[:, 1:] & (sums[:, 1:] < sums[:, :-1])).any(axis=1),
        "sum": (valid & (sums > sum_max)).any(axis=1),
        "row id": (valid & (ids >= rows)).any(axis=1),
    }
    if np.stack(list(wrong.values())).any():
        what = next(name for name, queries in wrong.items() if queries.any())
        raise WrongAnswer(f"the {what} of query {int(np.argmax(wrong[what]))} cannot be")
    return Answer(sums, ids, counts, _wide(heads, ResultWord.CYCLES_LOW),
                  int(_wide(heads, ResultWord.CODES_LOW).sum()))  # fmt: skip


def _wide(heads: U32, low: int) -> I64:
    both: I64 = heads[:, low].astype(np.int64) | heads[:, low + 1].astype(np.int64) << 32
    return both
