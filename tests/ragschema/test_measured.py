"""What a planner may ask of a device's profile."""

from __future__ import annotations

import pytest

from ragschema.errors import InvalidInput
from ragschema.measured import Measured
from tests.ragschema.profiles import profile, role

PREFILL = role(
    "prefill", "llama-3-8b", {"batch": [1, 2, 4], "tokens": [64, 512]},
    lambda batch, tokens: 0.01 + 1e-4 * batch * tokens, ("1", "batch*tokens"), 0.1,
)  # fmt: skip


def test_it_knows_what_was_measured() -> None:
    measured = Measured(profile(PREFILL))
    assert measured.knows("prefill")
    assert measured.knows("prefill", "llama-3-8b")
    assert not measured.knows("prefill", "llama-3-70b")
    assert not measured.knows("decode")


def test_it_takes_the_features_that_it_was_measured_over() -> None:
    measured = Measured(profile(PREFILL))
    found = measured.seconds("prefill", "llama-3-8b", {"batch": 3, "tokens": 100, "cached": 7})
    assert found is not None
    assert found.seconds == pytest.approx(0.01 + 1e-4 * 300, rel=1e-6)
    assert found.low < found.seconds < found.high


@pytest.mark.parametrize(("batch", "tokens"), [(8, 100), (2, 1024), (2, 16)])
def test_outside_the_range_there_is_no_answer_unless_it_is_allowed(batch: int, tokens: int) -> None:
    at = {"batch": batch, "tokens": tokens}
    assert Measured(profile(PREFILL)).seconds("prefill", None, at) is None
    found = Measured(profile(PREFILL), allow_extrapolation=True).seconds("prefill", None, at)
    assert found is not None
    assert found.extrapolated
    assert found.high / found.seconds > 1.2


def test_a_feature_that_no_plan_knows_is_named() -> None:
    odd = role("prefill", "m", {"phase": [1, 2]}, lambda phase: phase, ("phase",))
    with pytest.raises(InvalidInput, match="measured over 'phase'"):
        Measured(profile(odd)).seconds("prefill", "m", {"batch": 1})
