from __future__ import annotations

import pytest

from ragschema.errors import Unavailable
from retrieval_node.native import loader


def test_the_extension_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked past the cache, which keeps the first answer of the process."""
    monkeypatch.setenv(loader.WITHOUT, "1")
    assert loader.native.__wrapped__() is None
    monkeypatch.setenv(loader.WITHOUT, "0")
    assert loader.native.__wrapped__() is loader.native()


def test_what_needs_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "native", lambda: None)
    with pytest.raises(Unavailable, match="compiled scan") as caught:
        loader.require_native()
    assert loader.WITHOUT in (caught.value.hint or "")
