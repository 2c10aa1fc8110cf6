"""Passes of an encoder: texts of similar length, few enough to stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

#: Padded tokens of one pass. Larger passes push the activations out of the
#: core's cache: 32 texts at once took twice the time of four at a time.
TILE_TOKENS: Final = 512


def tiles(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of similar length, together of at most TILE_TOKENS padded tokens."""
    tile: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if tile and (len(tile) + 1) * lengths[tile[0]] > TILE_TOKENS:
            yield tile
            tile = []
        tile.append(row)
    if tile:
        yield tile
