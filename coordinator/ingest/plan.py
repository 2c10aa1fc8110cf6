"""Which way a run's changes reach the collection."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ragschema.storage.manifest import Manifest

EXACT_BELOW_ROWS = 1000
REFINE_UP_TO_ROWS = 2_000_000
MAX_SEGMENTS = 8
#: New rows up to this many join an indexed collection as they are: comparing
#: them all costs less than a coded segment of nearly empty lists.
FRESH_UP_TO_ROWS = 1024
MAX_TOMBSTONE_SHARE = 0.3
RETRAIN_GROWTH = 4


class Route(enum.Enum):
    """What is written.

    NOTHING: no new generation. TOMBSTONES: only deletions. APPEND: a new segment
    beside the old ones. REWRITE: all live rows in one new segment.
    """

    NOTHING = "nothing"
    TOMBSTONES = "tombstones"
    APPEND = "append"
    REWRITE = "rewrite"


@dataclass(frozen=True)
class Plan:
    """How to commit.

    Attributes:
        exact: the new segment holds exact vectors.
        train: the new segment comes with a new index.
        note: why something desirable is not done.
    """

    route: Route
    exact: bool = False
    train: bool = False
    note: str | None = None


@dataclass(frozen=True)
class Wish:
    """Index settings the user asked for; None: whatever fits."""

    nlist: int | None = None
    m: int | None = None


def choose(manifest: Manifest, new_rows: int, removed_rows: int, wish: Wish) -> Plan:
    """Decides from counts alone.

    Args:
        manifest: the committed state; of an empty collection for a new one.
        removed_rows: live rows that are to be deleted.
    """
    live = manifest.live_rows - removed_rows + new_rows
    if not new_rows and not removed_rows and not _wants_other_index(manifest, wish):
        return Plan(Route.NOTHING)
    if live == 0:
        return Plan(Route.REWRITE, exact=True)
    reason = _rewrite_reason(manifest, new_rows, removed_rows, wish)
    index = manifest.index
    if reason is not None and (index is None or index.refine_factor is not None):
        exact = live < EXACT_BELOW_ROWS
        return Plan(Route.REWRITE, exact=exact, train=not exact)
    note = None
    if reason is not None:
        note = f"{reason}, but the collection holds no vectors to build a new index from"
    route = Route.APPEND if new_rows else Route.TOMBSTONES
    if not new_rows and not removed_rows:
        route = Route.NOTHING
    # Segments that no rewrite will ever merge must not all be compared in full.
    fresh = 0 < new_rows <= FRESH_UP_TO_ROWS and reason is None
    return Plan(route, exact=index is None or fresh, note=note)


def _wants_other_index(manifest: Manifest, wish: Wish) -> bool:
    index = manifest.index
    if index is None:
        return False
    other_nlist = wish.nlist is not None and wish.nlist != index.nlist
    return other_nlist or (wish.m is not None and wish.m != index.m)


def _rewrite_reason(manifest: Manifest, new_rows: int, removed_rows: int, wish: Wish) -> str | None:
    live = manifest.live_rows - removed_rows + new_rows
    rows = manifest.next_row_id + new_rows
    if manifest.index is None and live >= EXACT_BELOW_ROWS:
        return f"the collection reached {EXACT_BELOW_ROWS} vectors"
    if _wants_other_index(manifest, wish):
        return "other index settings were asked for"
    if rows - live > MAX_TOMBSTONE_SHARE * rows:
        return f"more than {MAX_TOMBSTONE_SHARE:.0%} of the rows are deleted"
    if len(manifest.segments) + bool(new_rows) > MAX_SEGMENTS:
        return f"there would be more than {MAX_SEGMENTS} segments"
    # Training rewrites everything, so the first segment is what it saw.
    if manifest.index is not None and live >= RETRAIN_GROWTH * manifest.segments[0].row_count:
        return f"the collection grew {RETRAIN_GROWTH} times since its index was trained"
    return None
