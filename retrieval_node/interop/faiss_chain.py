"""A chain of faiss transforms folded into one rotation and one offset."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData, InvalidInput
from ragschema.types import F32

F64 = NDArray[np.float64]

#: How far a float32 rotation may be from orthonormal, per entry of A A^T.
_SLACK = 1e-3
_HINT = "rotations are taken: OPQMatrix, RandomRotationMatrix, PCAMatrix without whitening"


def folded(transforms: tuple[Any, ...], input_dim: int, dim: int) -> tuple[F32 | None, F32 | None]:
    """``x -> rotation @ x + offset`` for the whole chain; None for what changes nothing.

    Raises:
        InvalidInput: a transform that stretches, or is not linear, naming it.
        CorruptData: the chain does not lead from ``input_dim`` to ``dim``.
    """
    if not transforms:
        if input_dim != dim:
            raise CorruptData("an index without transforms changes its dimension", field="file")
        return None, None
    matrix: F64 = np.eye(input_dim)
    offset: F64 = np.zeros(input_dim)
    for transform in transforms:
        if transform.d_in != len(offset):
            raise CorruptData(
                f"a transform takes {transform.d_in} dimensions of {len(offset)}", field="file"
            )
        step, shift = _step(transform)
        matrix, offset = step @ matrix, step @ offset + shift
    if len(offset) != dim:
        raise CorruptData(
            f"its transforms give {len(offset)} dimensions, the index has {dim}", field="file"
        )
    rotation: F32 = np.ascontiguousarray(matrix, dtype=np.float32)
    return rotation, offset.astype(np.float32) if offset.any() else None


def _step(transform: Any) -> tuple[F64, F64]:
    name = type(transform).__name__
    if isinstance(transform, faiss.CenteringTransform):
        mean = faiss.vector_to_array(transform.mean).astype(np.float64)
        if len(mean) != transform.d_in:
            raise CorruptData(f"{name} has a mean of {len(mean)} components", field="file")
        return np.eye(transform.d_in), -mean
    if not isinstance(transform, faiss.LinearTransform):
        raise InvalidInput(f"the file holds the transform {name}", field="file", hint=_HINT)
    if not transform.is_trained:
        raise InvalidInput(f"its transform {name} is not trained", field="file", hint=_HINT)
    matrix = faiss.vector_to_array(transform.A).astype(np.float64)
    bias = faiss.vector_to_array(transform.b).astype(np.float64)
    rows, columns = transform.d_out, transform.d_in
    if matrix.size != rows * columns or (transform.have_bias and bias.size != rows):
        raise CorruptData(f"{name} does not hold {rows} x {columns} numbers", field="file")
    matrix = matrix.reshape(rows, columns)
    _check_rotation(name, matrix)
    return matrix, bias if transform.have_bias else np.zeros(rows)


def _check_rotation(name: str, matrix: F64) -> None:
    """Rows (or, where it adds dimensions, columns) are orthonormal."""
    rows, columns = matrix.shape
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    if not float(np.abs(product - np.eye(len(product))).max()) <= _SLACK:
        raise InvalidInput(
            f"its transform {name} stretches the space: it whitens, or is no rotation",
            field="file",
            hint=_HINT,
        )
