"""Everything about nodes holds for calls and for streams."""

from __future__ import annotations

import pytest

from tests.fake_nodes import FakeRetrieval


@pytest.fixture(params=[True, False], ids=["stream", "calls"], autouse=True)
def streams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether stand-in nodes offer searches in a stream."""
    offered = bool(request.param)
    monkeypatch.setattr(FakeRetrieval, "streams", offered)
    return offered
