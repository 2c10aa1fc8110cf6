"""An embedder for one command, with a stand-in for the node."""

from __future__ import annotations

import os

import pytest

from coordinator.supervisor.commands import Programs
from coordinator.supervisor.ports import port_is_free
from coordinator.supervisor.resolve import port_of
from coordinator.supervisor.temporary import temporary_embedder
from ragschema.errors import Unavailable
from ragschema.rig import LlmNodeConfig
from tests.coordinator.supervisor.helpers import STAND_IN

NODE = LlmNodeConfig(name="llm-0")
PROGRAMS = Programs(STAND_IN, STAND_IN, STAND_IN)


async def test_serves_inside_the_block_and_is_gone_after() -> None:
    async with temporary_embedder(NODE, 1, PROGRAMS) as address:
        assert not port_is_free("127.0.0.1", port_of(address))
    assert port_is_free("127.0.0.1", port_of(address))


async def test_is_gone_after_an_error_in_the_block() -> None:
    where = []

    async def fails() -> None:
        async with temporary_embedder(NODE, 1, PROGRAMS) as address:
            where.append(port_of(address))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert port_is_free("127.0.0.1", where[0])


async def test_one_failed_start_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "STAND_IN_FAIL", "llm-0")
    with pytest.raises(Unavailable, match="there is no model in /nowhere"):
        async with temporary_embedder(NODE, 1, PROGRAMS):
            pass
