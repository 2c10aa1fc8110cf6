"""Protobuf to types and back; everything that arrives is checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ragschema import errors as e
from ragschema import types as t
from ragschema.wire import common_pb2, llm_pb2
from ragschema.wire import convert as c
from tests.ragschema.wire.making import U32, Words, same, through_bytes

WIRE_DTYPES = ["<f4", "<f2", "<i4", "<i8", "|u1", "<u2"]

any_array = st.sampled_from(WIRE_DTYPES).flatmap(
    lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=1, max_dims=3, min_side=0))
)


@given(any_array)
def test_tensors_round_trip(array: NDArray[Any]) -> None:
    message = through_bytes(c.tensor_to_wire(array))
    back = c.tensor_from_wire(message, array.dtype.type, array.ndim, "x")
    assert same(array, back)


def test_strided_and_big_endian_arrays_travel_packed() -> None:
    array = np.arange(24, dtype=">f4").reshape(4, 6)[::2, ::3]
    back = c.tensor_from_wire(c.tensor_to_wire(array), np.float32, 2, "x")
    np.testing.assert_array_equal(back, array)


def test_an_array_without_a_wire_type_is_our_own_defect() -> None:
    with pytest.raises(AssertionError, match="float64"):
        c.tensor_to_wire(np.zeros(3))


@given(any_array, st.sampled_from(WIRE_DTYPES), st.integers(1, 3))
def test_a_wrong_dtype_or_rank_names_the_field(array: NDArray[Any], wanted: str, ndim: int) -> None:
    message = c.tensor_to_wire(array)
    fits = array.dtype == np.dtype(wanted) and array.ndim == ndim
    if fits:
        assert same(array, c.tensor_from_wire(message, np.dtype(wanted).type, ndim, "q"))
        return
    with pytest.raises(e.InvalidInput) as caught:
        c.tensor_from_wire(message, np.dtype(wanted).type, ndim, "q")
    assert caught.value.field == "q"


@given(
    shape=st.lists(U32, max_size=4),
    data=st.binary(max_size=32),
    dtype=st.integers(-1, 9),
)
def test_any_tensor_gives_an_array_or_names_the_field(
    shape: list[int], data: bytes, dtype: int
) -> None:
    message = common_pb2.Tensor(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]
    try:
        array = c.tensor_from_wire(message, np.float32, 2, "queries")
    except e.InvalidInput as error:
        assert error.field == "queries"
    else:
        assert list(array.shape) == shape


@pytest.mark.parametrize("extra", [-4, -1, 1, 4])
def test_a_wrong_byte_count_says_both_numbers(extra: int) -> None:
    message = c.tensor_to_wire(np.zeros((2, 3), np.float32))
    message.data = b"\0" * (24 + extra)
    with pytest.raises(e.InvalidInput, match=f"needs 24 bytes, got {24 + extra}"):
        c.tensor_from_wire(message, np.float32, 2, "queries")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_row_that_is_not_finite_is_named(value: float) -> None:
    array = np.zeros((4, 3), np.float32)
    array[2, 1] = value
    with pytest.raises(e.InvalidInput, match="vector 2") as caught:
        c.require_finite(array, "queries")
    assert caught.value.field == "queries"


@pytest.mark.parametrize("role", list(t.Role))
def test_roles_round_trip(role: t.Role) -> None:
    assert c.role_from_wire(c.role_to_wire(role), "role") is role


@pytest.mark.parametrize("value", [0, 77, -1])
def test_an_unknown_role_names_the_field(value: int) -> None:
    with pytest.raises(e.InvalidInput) as caught:
        c.role_from_wire(value, "role")
    assert caught.value.field == "role"


def test_purposes_round_trip_and_default_to_passage() -> None:
    for purpose in t.EmbedPurpose:
        assert c.purpose_from_wire(c.purpose_to_wire(purpose)) is purpose
    assert c.purpose_from_wire(llm_pb2.EMBED_PURPOSE_UNSPECIFIED) is t.EmbedPurpose.PASSAGE


@given(
    st.builds(
        t.ModelInfo,
        role=st.sampled_from(t.Role),
        name=Words,
        fingerprint=Words,
        dim=st.none() | st.integers(1, 65536),
        max_input_tokens=st.none() | st.integers(1, 1 << 20),
    )
)
def test_models_round_trip(model: t.ModelInfo) -> None:
    assert c.model_from_wire(through_bytes(c.model_to_wire(model))) == model


@given(Words, Words)
def test_error_text_survives(message: str, hint: str) -> None:
    back = c.error_from_wire(through_bytes(c.error_to_wire(e.Conflict(message, hint=hint))))
    assert (back.message, back.hint or "") == (message, hint)


def test_a_very_long_error_fits_into_metadata() -> None:
    error = e.InvalidInput("ä" * 100_000, field="f" * 100_000, hint="h" * 100_000)
    detail = c.error_to_wire(error)
    assert len(detail.SerializeToString()) < 6_000
    assert detail.message.startswith("ä" * 500)


def test_a_file_name_that_is_not_utf8_does_not_break_the_error() -> None:
    detail = c.error_to_wire(e.UnreadableDocument("cannot read 'a\udcff.txt'"))
    assert through_bytes(detail).message.startswith("cannot read 'a")
