"""Protobuf to types and back; everything that arrives is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ragschema import errors as e
from ragschema import types as t
from ragschema.wire import common_pb2, llm_pb2, retrieval_pb2
from ragschema.wire import convert as c

WIRE_DTYPES = ["<f4", "<f2", "<i4", "<i8", "|u1", "<u2"]
U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
Words = st.text(max_size=20)

any_array = st.sampled_from(WIRE_DTYPES).flatmap(
    lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=1, max_dims=3, min_side=0))
)


def through_bytes(message: Any) -> Any:
    """What a peer parses."""
    return type(message).FromString(message.SerializeToString())


def same(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


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


@st.composite
def search_batches(draw: st.DrawFn) -> t.SearchBatch:
    n, dim, probes = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    finite = st.floats(-1e6, 1e6, width=32)
    filters = draw(st.lists(hnp.arrays(np.uint8, st.integers(0, 4)), max_size=3))
    chosen = hnp.arrays(np.int32, n, elements=st.integers(-1, len(filters) - 1))
    lists = hnp.arrays(np.int32, (n, probes), elements=st.integers(-1, 99))
    return t.SearchBatch(
        snapshot=t.SnapshotId(draw(Words), draw(U64)),
        shards=tuple(draw(st.lists(U32, max_size=4))),
        queries=draw(hnp.arrays(np.float32, (n, dim), elements=finite)),
        list_ids=draw(st.none() | lists),
        k=draw(st.integers(1, 4096)),
        refine_k=draw(st.none() | st.integers(1, 4096)),
        filters=tuple(filters),
        filter_of=draw(st.none() | chosen),
    )


@given(search_batches())
def test_searches_round_trip(batch: t.SearchBatch) -> None:
    back = c.search_from_wire(through_bytes(c.search_to_wire(batch)), 4096)
    assert (back.snapshot, back.shards, back.k, back.refine_k) == (
        batch.snapshot, batch.shards, batch.k, batch.refine_k,
    )  # fmt: skip
    assert same(batch.queries, back.queries)
    assert same(batch.list_ids, back.list_ids)
    assert same(batch.filter_of, back.filter_of)
    assert len(back.filters) == len(batch.filters)
    assert all(same(a, b) for a, b in zip(batch.filters, back.filters, strict=True))


def a_search() -> retrieval_pb2.SearchRequest:
    return c.search_to_wire(
        t.SearchBatch(
            snapshot=t.SnapshotId("docs", 1),
            shards=(0,),
            queries=np.ones((2, 4), np.float32),
            list_ids=np.zeros((2, 3), np.int32),
            k=5,
            refine_k=10,
            filters=(np.zeros(2, np.uint8),),
            filter_of=np.array([0, -1], np.int32),
        )
    )


def put(name: str, array: NDArray[Any]) -> Callable[[retrieval_pb2.SearchRequest], None]:
    return lambda message: getattr(message, name).CopyFrom(c.tensor_to_wire(array))


def nan_query() -> NDArray[Any]:
    array = np.ones((2, 4), np.float32)
    array[1, 3] = np.nan
    return array


BAD_SEARCHES: dict[str, tuple[Callable[[retrieval_pb2.SearchRequest], Any], str]] = {
    "no queries": (lambda m: m.ClearField("queries"), "queries"),
    "a NaN": (put("queries", nan_query()), "queries"),
    "float16 queries": (put("queries", np.ones((2, 4), np.float16)), "queries"),
    "one query without rows": (put("queries", np.ones(4, np.float32)), "queries"),
    "k of 0": (lambda m: setattr(m, "k", 0), "k"),
    "k too large": (lambda m: setattr(m, "k", 101), "k"),
    "refine_k of 0": (lambda m: setattr(m, "refine_k", 0), "refine_k"),
    "refine_k too large": (lambda m: setattr(m, "refine_k", 101), "refine_k"),
    "lists of another count": (put("list_ids", np.zeros((3, 3), np.int32)), "list_ids"),
    "lists of int64": (put("list_ids", np.zeros((2, 3), np.int64)), "list_ids"),
    "filter past the end": (put("filter_of", np.array([0, 1], np.int32)), "filter_of"),
    "filter below -1": (put("filter_of", np.array([0, -2], np.int32)), "filter_of"),
    "filters of another count": (put("filter_of", np.array([0], np.int32)), "filter_of"),
}


@pytest.mark.parametrize("name", BAD_SEARCHES)
def test_a_bad_search_names_the_field(name: str) -> None:
    change, field = BAD_SEARCHES[name]
    message = a_search()
    c.search_from_wire(message, 100)
    change(message)
    with pytest.raises(e.InvalidInput) as caught:
        c.search_from_wire(message, 100)
    assert caught.value.field == field


@st.composite
def search_results(draw: st.DrawFn) -> t.SearchResult:
    n, k = draw(st.integers(0, 4)), draw(st.integers(1, 5))
    return t.SearchResult(
        distances=draw(hnp.arrays(np.float32, (n, k), elements=st.floats(-9, 9, width=32))),
        row_ids=draw(hnp.arrays(np.int64, (n, k))),
        counts=draw(hnp.arrays(np.int32, n, elements=st.integers(0, k))),
        rows_covered=draw(U64),
        stats=t.SearchStats(draw(U64), draw(U64), draw(U32), draw(U32), draw(U32)),
    )


@given(search_results())
def test_results_round_trip(result: t.SearchResult) -> None:
    back = c.result_from_wire(through_bytes(c.result_to_wire(result)))
    assert same(result.distances, back.distances)
    assert same(result.row_ids, back.row_ids)
    assert same(result.counts, back.counts)
    assert (back.rows_covered, back.stats) == (result.rows_covered, result.stats)


def a_result() -> retrieval_pb2.SearchReply:
    return c.result_to_wire(
        t.SearchResult(
            np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64), np.full(2, 3, np.int32), 9
        )
    )


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("row_ids", np.zeros((2, 4), np.int64)),
        ("row_ids", np.zeros((2, 3), np.int32)),
        ("distances", np.zeros((1, 3), np.float32)),
        ("distances", np.full((2, 3), np.nan, np.float32)),
        ("counts", np.zeros(3, np.int32)),
        ("counts", np.array([0, 4], np.int32)),
        ("counts", np.array([-1, 0], np.int32)),
        ("counts", np.zeros((2, 1), np.int32)),
    ],
)
def test_a_reply_that_does_not_fit_is_the_upstreams_fault(name: str, array: NDArray[Any]) -> None:
    """A node's mistake must not look like the user's."""
    message = a_result()
    c.result_from_wire(message)
    getattr(message, name).CopyFrom(c.tensor_to_wire(array))
    with pytest.raises(e.UpstreamError):
        c.result_from_wire(message)


samplings = st.builds(
    t.Sampling,
    max_tokens=st.integers(1, 1 << 20),
    temperature=st.floats(0, 100, width=32),
    top_p=st.floats(0, 1, width=32, exclude_min=True),
    seed=st.none() | U64,
    stop=st.lists(Words, max_size=3).map(tuple),
)
specs = st.builds(
    t.GenerateSpec,
    messages=st.lists(st.builds(t.ChatMessage, Words, Words), max_size=3).map(tuple),
    question=Words,
    passages=st.lists(st.builds(t.Passage, U32, Words, Words), max_size=3).map(tuple),
    sampling=samplings,
)


@given(specs)
def test_generations_round_trip(spec: t.GenerateSpec) -> None:
    assert c.generate_from_wire(through_bytes(c.generate_to_wire(spec))) == spec


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", (1 << 20) + 1),
        ("temperature", -0.5),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
    ],
)
def test_sampling_out_of_range_names_the_field(name: str, value: float) -> None:
    message = c.generate_to_wire(t.GenerateSpec((), "q", ()))
    setattr(message.sampling, name, value)
    with pytest.raises(e.InvalidInput) as caught:
        c.generate_from_wire(message)
    assert caught.value.field == f"sampling.{name}"


events: st.SearchStrategy[t.GenerateEvent] = st.builds(t.TokenPiece, Words, U32) | st.builds(
    t.GenerateEnd, st.sampled_from(["stop", "length"]), U64, U64, U32, U32, U32
)


@given(events)
def test_events_round_trip(event: t.GenerateEvent) -> None:
    assert c.event_from_wire(through_bytes(c.event_to_wire(event))) == event


def test_an_event_of_an_unknown_kind_is_the_upstreams_fault() -> None:
    with pytest.raises(e.UpstreamError):
        c.event_from_wire(llm_pb2.GenerateEvent())


@pytest.mark.parametrize("role", list(t.Role))
def test_roles_round_trip(role: t.Role) -> None:
    assert c.role_from_wire(c.role_to_wire(role), "role") is role


@pytest.mark.parametrize("value", [0, 3, 77])
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
