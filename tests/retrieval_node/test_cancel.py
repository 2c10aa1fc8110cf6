from __future__ import annotations

import time

import pytest

from ragschema.errors import Cancelled, DeadlineExceeded
from retrieval_node import cancel
from retrieval_node.cancel import Cancellation


@pytest.mark.parametrize("compiled", [True, False])
def test_is_raised_once_set_or_late(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(cancel, "native", lambda: None)
    in_time = Cancellation(time.monotonic() + 60)
    in_time.check()
    in_time.set()
    with pytest.raises(Cancelled):
        in_time.check()
    with pytest.raises(DeadlineExceeded) as caught:
        Cancellation(time.monotonic()).check()
    assert caught.value.hint
    Cancellation().check()
    assert compiled or in_time.handle is None
