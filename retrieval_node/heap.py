"""A bounded max-heap on (key, row id), shared by the kernels."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ragschema.types import I64
from retrieval_node.jit import compiled


@compiled
def _sift_down(keys: NDArray[Any], ids: I64, size: int) -> None:
    """Moves the root down until no child is larger."""
    key, row = keys[0], ids[0]
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            keys[other] > keys[child] or (keys[other] == keys[child] and ids[other] > ids[child])
        ):
            child = other
        if keys[child] < key or (keys[child] == key and ids[child] < row):
            break
        keys[hole], ids[hole] = keys[child], ids[child]
        hole = child
    keys[hole], ids[hole] = key, row


@compiled
def offer(keys: NDArray[Any], ids: I64, size: int, key: Any, row: int) -> int:
    """Takes (key, row) in if it is among the smallest; returns the new size.

    ``keys`` and ``ids`` are one query's heap, as long as its capacity.
    """
    if size < keys.shape[0]:
        hole = size
        while hole > 0:
            parent = (hole - 1) >> 1
            if keys[parent] > key or (keys[parent] == key and ids[parent] > row):
                break
            keys[hole], ids[hole] = keys[parent], ids[parent]
            hole = parent
        keys[hole], ids[hole] = key, row
        return size + 1
    if key < keys[0] or (key == keys[0] and row < ids[0]):
        keys[0], ids[0] = key, row
        _sift_down(keys, ids, size)
    return size


@compiled
def sort_heap(keys: NDArray[Any], ids: I64, size: int) -> None:
    """Turns the heap into ascending order in place."""
    for end in range(size - 1, 0, -1):
        keys[0], keys[end] = keys[end], keys[0]
        ids[0], ids[end] = ids[end], ids[0]
        _sift_down(keys, ids, end)
