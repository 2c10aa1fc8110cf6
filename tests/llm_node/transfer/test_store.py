from __future__ import annotations

from typing import Any, cast

import pytest

from llm_node.transfer.store import SnapshotStore
from ragschema.errors import NotFound, Overloaded, PayloadTooLarge

SNAPSHOT = cast("Any", object())


def test_a_ticket_holds_until_it_is_released() -> None:
    store = SnapshotStore(100)
    with store.reserved(60):
        ticket = store.put(SNAPSHOT, 60, expires_s=1e18)
    assert store.get(ticket) is SNAPSHOT
    assert store.get(ticket) is SNAPSHOT
    store.release(ticket)
    store.release("unknown")
    assert store.bytes_held == 0
    with pytest.raises(NotFound) as caught:
        store.get(ticket)
    assert caught.value.field == "ticket"


def test_what_is_being_computed_counts() -> None:
    store = SnapshotStore(100)
    with store.reserved(60):
        with pytest.raises(Overloaded, match="60 bytes"), store.reserved(41):
            pass
        with store.reserved(40):
            pass
    with store.reserved(100):
        pass


def test_time_frees_what_nobody_released() -> None:
    now_s = [0.0]
    store = SnapshotStore(100, lambda: now_s[0])
    ticket = store.put(SNAPSHOT, 100, expires_s=5.0)
    with pytest.raises(Overloaded), store.reserved(1):
        pass
    now_s[0] = 5.0
    with store.reserved(100):
        pass
    with pytest.raises(NotFound):
        store.get(ticket)


def test_what_can_never_fit_is_refused_for_good() -> None:
    store = SnapshotStore(100)
    with pytest.raises(PayloadTooLarge, match=r"has 101 bytes, .* 100 at most") as caught:
        store.reserved(101).__enter__()
    assert caught.value.field == "messages"
    assert caught.value.hint is not None
    with store.reserved(100):
        pass
