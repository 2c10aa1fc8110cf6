"""The error tree and its table of statuses."""

from __future__ import annotations

import grpc
import pytest

from ragschema import errors as e
from ragschema.status import _TABLE, error_class_of, status_of
from ragschema.wire.convert import error_from_wire, error_to_wire

ALL = sorted(e.all_error_types().values(), key=lambda cls: cls.__name__)


def test_type_names_are_unique_and_snake_case() -> None:
    classes = _tree(e.RagrigError)
    names = [cls.type_name for cls in classes]
    assert sorted(set(names)) == sorted(names)
    assert all(name == name.lower() and " " not in name for name in names)


def _tree(cls: type[e.RagrigError]) -> list[type[e.RagrigError]]:
    found = []
    for child in cls.__subclasses__():
        found += [child, *_tree(child)]
    return found


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_class_has_a_row_of_its_own(cls: type[e.RagrigError]) -> None:
    rows = [row for row, _ in _TABLE]
    assert rows.count(cls) == 1


def test_the_most_specific_row_wins() -> None:
    rows = [row for row, _ in _TABLE]
    for later, cls in enumerate(rows):
        shadowing = [earlier for earlier in rows[:later] if issubclass(cls, earlier)]
        assert shadowing == [], f"{cls.__name__} can never be reached"


@pytest.mark.parametrize(
    ("error", "http"),
    [
        (e.InvalidInput("x"), 422),
        (e.PayloadTooLarge("x"), 413),
        (e.NotFound("x"), 404),
        (e.Conflict("x"), 409),
        (e.Unauthenticated("x"), 401),
        (e.Overloaded("x"), 429),
        (e.DeadlineExceeded("x"), 504),
        (e.Unavailable("x"), 503),
        (e.InsufficientCoverage("x"), 503),
        (e.UpstreamError("x"), 502),
        (e.CorruptData("x"), 500),
        (e.RagrigError("x"), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_http_status(error: e.RagrigError, http: int) -> None:
    assert status_of(error).http == http


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_round_trip_through_the_wire(cls: type[e.RagrigError]) -> None:
    error = cls("what", field="a.b", hint="do this", trace_id="0123456789abcdef")
    back = error_from_wire(error_to_wire(error))
    assert type(back).type_name == cls.type_name
    assert (back.message, back.field, back.hint, back.trace_id) == (
        "what",
        "a.b",
        "do this",
        "0123456789abcdef",
    )


def test_absent_parts_stay_absent_on_the_wire() -> None:
    back = error_from_wire(error_to_wire(e.NotFound("gone")))
    assert (back.field, back.hint, back.trace_id) == (None, None, None)


def test_an_unknown_type_name_becomes_internal() -> None:
    detail = error_to_wire(e.NotFound("x"))
    detail.type = "from_the_future"
    assert isinstance(error_from_wire(detail), e.InternalError)


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_a_bare_grpc_status_maps_to_a_class(code: grpc.StatusCode) -> None:
    assert issubclass(error_class_of(code), e.RagrigError)


def test_grpc_codes_lead_back_to_a_kindred_class() -> None:
    """A status that lost its detail still gives the same HTTP family."""
    for cls in ALL:
        status = status_of(cls("x"))
        back = status_of(error_class_of(status.grpc)("x"))
        assert back.http // 100 == status.http // 100 or cls in (
            e.IncompatibleRequest,
            e.VersionMismatch,
        )


def test_text_names_field_and_hint() -> None:
    error = e.InvalidInput("-1 is too small", field="k", hint="use 1 or more")
    assert str(error) == "k: -1 is too small (use 1 or more)"
    assert str(e.NotFound("gone")) == "gone"


def test_overloaded_says_when_to_come_back() -> None:
    assert e.Overloaded("full", retry_after_s=2.5).retry_after_s == 2.5
