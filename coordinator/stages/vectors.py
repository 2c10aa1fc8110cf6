"""Checks a vector that a caller sent and makes it ready for its collection."""

from __future__ import annotations

import math

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.types import F32, Metric

#: Beyond this length squared distances leave float32.
_MAX_LENGTH = 1e15


def query_vector(vector: F32, dim: int, metric: Metric) -> F32:
    """float32 [dim], unit length where the metric is cosine.

    Raises:
        InvalidInput: wrong dimension, not finite, too long, or without direction.
    """
    if vector.shape != (dim,):
        got = "x".join(map(str, vector.shape))
        raise InvalidInput(
            f"the vector has {got} numbers, the collection's vectors have {dim}",
            field="vector",
            hint="embed the query with the model the collection was made with",
        )
    # One pass in float64: a NaN or an infinity anywhere shows in the sum, and
    # no finite float32 overflows it.
    wide = vector.astype(np.float64)
    length = math.sqrt(float(wide @ wide))
    if not math.isfinite(length):
        raise InvalidInput(
            "the vector holds NaN or infinity", field="vector", hint="send finite numbers"
        )
    if metric is Metric.COSINE:
        if length == 0.0:
            raise InvalidInput(
                "the vector is all zeros and has no direction to compare by cosine",
                field="vector",
                hint="send a vector that is not zero",
            )
        return (wide / length).astype(np.float32)
    if length > _MAX_LENGTH:
        raise InvalidInput(
            f"the vector's length is {length:.3g}, more than {_MAX_LENGTH:.0e}",
            field="vector",
            hint="scale the vectors down",
        )
    return vector
