"""Where protobuf messages and ragrig's own types meet; see also ``searches``, ``generating``.

Everything that arrives is untrusted: shapes, dtypes and byte counts are
checked before an array is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragschema import errors as e
from ragschema import types as t
from ragschema.wire import common_pb2, llm_pb2, retrieval_pb2

ERROR_METADATA_KEY = "ragrig-error-bin"
TRACE_METADATA_KEY = "x-ragrig-trace-id"

_DTYPES: tuple[tuple[int, str], ...] = (
    (common_pb2.DTYPE_F32, "<f4"),
    (common_pb2.DTYPE_F16, "<f2"),
    (common_pb2.DTYPE_I32, "<i4"),
    (common_pb2.DTYPE_I64, "<i8"),
    (common_pb2.DTYPE_U8, "|u1"),
    (common_pb2.DTYPE_U16, "<u2"),
)
_WIRE: dict[int, np.dtype[Any]] = {code: np.dtype(name) for code, name in _DTYPES}
_CODES: dict[np.dtype[Any], int] = {dtype: code for code, dtype in _WIRE.items()}
_ROLE_CODES: dict[t.Role, llm_pb2.Role.ValueType] = {
    t.Role.EMBED: llm_pb2.ROLE_EMBED,
    t.Role.GENERATE: llm_pb2.ROLE_GENERATE,
    t.Role.PREFILL: llm_pb2.ROLE_PREFILL,
    t.Role.DECODE: llm_pb2.ROLE_DECODE,
    t.Role.RERANK: llm_pb2.ROLE_RERANK,
    t.Role.REWRITE: llm_pb2.ROLE_REWRITE,
    t.Role.INDEX_SCAN: llm_pb2.ROLE_INDEX_SCAN,
}


def tensor_to_wire(array: NDArray[Any]) -> common_pb2.Tensor:
    """Packs an array; it must have one of the six wire dtypes."""
    code, packed = pack_array(array)
    return common_pb2.Tensor(dtype=code, shape=list(array.shape), data=packed.tobytes())  # type: ignore[arg-type]


def pack_array(array: NDArray[Any]) -> tuple[int, NDArray[Any]]:
    """The wire's code of its dtype, and its values contiguous and little-endian."""
    code = _CODES.get(array.dtype) or _CODES.get(array.dtype.newbyteorder("<"))
    assert code is not None, f"dtype {array.dtype} has no wire type"
    return code, np.ascontiguousarray(array, dtype=_WIRE[code])


def tensor_from_wire(
    tensor: common_pb2.Tensor, dtype: type[np.generic], ndim: int, field: str
) -> NDArray[Any]:
    """Unpacks without copying; the array is read-only.

    Raises:
        InvalidInput: wrong dtype, rank or byte count, naming ``field``.
    """
    return unpack_tensor(tensor.dtype, tensor.shape, Span(tensor.data), dtype, ndim, field)


class Span(NamedTuple):
    """Bytes ``start`` .. ``stop - 1`` of a longer message; ``stop`` None: all of it."""

    source: bytes
    start: int = 0
    stop: int | None = None


def unpack_tensor(
    code: int, shape: Sequence[int], data: Span, dtype: type[np.generic], ndim: int, field: str
) -> NDArray[Any]:
    """A tensor's parts as a read-only array over the bytes they came in.

    Copies only where the bytes are not aligned to the dtype.

    Raises:
        InvalidInput: wrong dtype, rank or byte count, naming ``field``.
    """
    want = _WIRE.get(code)
    if want is None or want.type is not dtype:
        known = common_pb2.DType.Name(code) if want else code  # type: ignore[arg-type]
        raise e.InvalidInput(
            f"dtype {known} is not {np.dtype(dtype).name}",
            field=field,
            hint="send little-endian packed values of the documented dtype",
        )
    if len(shape) != ndim:
        raise e.InvalidInput(f"has {len(shape)} dimensions, expected {ndim}", field=field)
    count = math.prod(shape)
    stop = len(data.source) if data.stop is None else data.stop
    if count * want.itemsize != stop - data.start:
        raise e.InvalidInput(
            f"shape {list(shape)} needs {count * want.itemsize} bytes, got {stop - data.start}",
            field=field,
        )
    if not count:
        return np.zeros(shape, want)
    array = np.frombuffer(data.source, want, count, data.start).reshape(shape)
    return array if array.flags.aligned else array.copy()


def require_finite(array: NDArray[Any], field: str) -> None:
    """Raises InvalidInput when a NaN or an infinity is in the array."""
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise e.InvalidInput(
            f"vector {row} holds NaN or infinity", field=field, hint="send finite numbers"
        )


def wire_text(text: str, max_bytes: int) -> str:
    """Text that fits into gRPC metadata: valid UTF-8 of at most ``max_bytes``."""
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")


def error_to_wire(error: e.RagrigError) -> common_pb2.ErrorDetail:
    """The detail that rides in the trailing metadata of a failed call.

    Cut to size: gRPC drops a reply whose metadata is larger than 8 KiB, and
    with it the error.
    """
    return common_pb2.ErrorDetail(
        type=error.type_name,
        message=wire_text(error.message, 2000),
        field=wire_text(error.field or "", 200),
        hint=wire_text(error.hint or "", 800),
        trace_id=wire_text(error.trace_id or "", 64),
        retry_after_ms=round(error.retry_after_s * 1e3) if isinstance(error, e.Overloaded) else 0,
    )


def error_from_wire(detail: common_pb2.ErrorDetail) -> e.RagrigError:
    """Rebuilds the typed error a peer raised."""
    cls = e.all_error_types().get(detail.type, e.InternalError)
    error = cls(
        detail.message,
        field=detail.field or None,
        hint=detail.hint or None,
        trace_id=detail.trace_id or None,
    )
    if isinstance(error, e.Overloaded) and detail.retry_after_ms:
        error.retry_after_s = detail.retry_after_ms / 1e3
    return error


def snapshot_to_wire(snapshot: t.SnapshotId) -> retrieval_pb2.SnapshotRef:
    return retrieval_pb2.SnapshotRef(collection=snapshot.collection, generation=snapshot.generation)


def snapshot_from_wire(ref: retrieval_pb2.SnapshotRef) -> t.SnapshotId:
    return t.SnapshotId(ref.collection, ref.generation)


def role_to_wire(role: t.Role) -> llm_pb2.Role.ValueType:
    return _ROLE_CODES[role]


def role_from_wire(value: int, field: str) -> t.Role:
    for role, code in _ROLE_CODES.items():
        if code == value:
            return role
    raise e.InvalidInput(
        f"{value} is no role", field=field, hint=f"use one of {', '.join(_ROLE_CODES)}"
    )


def purpose_to_wire(purpose: t.EmbedPurpose) -> llm_pb2.EmbedPurpose.ValueType:
    if purpose is t.EmbedPurpose.QUERY:
        return llm_pb2.EMBED_PURPOSE_QUERY
    return llm_pb2.EMBED_PURPOSE_PASSAGE


def purpose_from_wire(value: int) -> t.EmbedPurpose:
    """Unspecified means passage, as an older peer would mean it."""
    if value == llm_pb2.EMBED_PURPOSE_QUERY:
        return t.EmbedPurpose.QUERY
    return t.EmbedPurpose.PASSAGE


def model_to_wire(model: t.ModelInfo) -> llm_pb2.ModelInfo:
    return llm_pb2.ModelInfo(
        role=role_to_wire(model.role),
        name=model.name,
        fingerprint=model.fingerprint,
        dim=model.dim or 0,
        max_input_tokens=model.max_input_tokens or 0,
    )


def model_from_wire(message: llm_pb2.ModelInfo) -> t.ModelInfo:
    return t.ModelInfo(
        role=role_from_wire(message.role, "models.role"),
        name=message.name,
        fingerprint=message.fingerprint,
        dim=message.dim or None,
        max_input_tokens=message.max_input_tokens or None,
    )
