"""Row filters: which rows a request may get, and how many lists that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coordinator.collections.cache import WeightedLru
from coordinator.collections.filters import cache_key
from coordinator.collections.snapshot import Snapshot
from coordinator.types import FilterTerm
from ragschema.types import U8

_CACHE_BYTES = 64 << 20
_ENTRY_BYTES = 300
#: So few rows are found for certain rather than likely: all lists are scanned.
_FEW_ROWS = 4096
#: Lists on top of the proportion, as a share of it: passing rows need not be
#: spread evenly over the lists. Less where nearly every row passes.
_SAFETY = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class RowFilter:
    """Rows that may be returned.

    Attributes:
        bitmap: uint8 [ceil(next_row_id / 8)], low bit first; live rows only.
        passing: bits set in it.
        selectivity: passing over live rows; 1.0 of an empty collection.
    """

    bitmap: U8
    passing: int
    selectivity: float


class RowFilters:
    """The filters of one snapshot; those asked again are remembered."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._known: WeightedLru[tuple[object, ...], RowFilter] = WeightedLru(_CACHE_BYTES)

    def known(self, terms: tuple[FilterTerm, ...]) -> RowFilter | None:
        """A remembered filter; costs microseconds."""
        return self._known.get(cache_key(terms))

    def find(self, terms: tuple[FilterTerm, ...]) -> RowFilter:
        """Reads the metadata of every row; safe to use from several threads.

        Raises:
            InvalidInput: a term no value of its field can be compared with.
        """
        bitmap = self._snapshot.filter_bitmap(terms)
        passing = int(np.bitwise_count(bitmap).sum(dtype=np.int64))
        live = self._snapshot.manifest.live_rows
        found = RowFilter(bitmap, passing, passing / live if live else 1.0)
        self._known.put(cache_key(terms), found, _ENTRY_BYTES + bitmap.nbytes)
        return found


@dataclass(frozen=True, slots=True)
class Reach:
    """How many lists a search scans.

    Attributes:
        first: at first.
        most: while fewer rows were found than there are; equals first when
            that cannot happen.
        limited: the rig's limit made it fewer lists than the filter needs.
    """

    first: int
    most: int
    limited: bool = False


def reach_of(nprobe: int, nlist: int, row_filter: RowFilter | None, max_share: float) -> Reach:
    """Lists to scan so that a filter costs no recall.

    Thinning the rows moves the k-th neighbour outwards, to about where the
    (k / selectivity)-th of all rows lies. Lists are added in that proportion,
    which is more than measured curves ask for; it also serves filters whose
    rows lie away from the query.

    Args:
        nprobe: lists to scan without a filter, at most ``nlist``.
        max_share: of all lists, to which filters may grow a search.
    """
    if row_filter is None or not row_filter.passing:
        return Reach(nprobe, nprobe)
    most = max(nprobe, math.ceil(nlist * max_share))
    wanted = nlist
    if row_filter.passing > _FEW_ROWS:
        share = row_filter.selectivity
        more = 1.0 + min(_SAFETY, 1.0 - share)
        wanted = min(nlist, math.ceil(nprobe / share * more))
    return Reach(min(wanted, most), most, wanted > most)
