"""Taken ports are found before a node starts."""

from __future__ import annotations

import socket

import pytest

from coordinator.supervisor.ports import port_is_free, require_free
from ragschema.errors import Unavailable


def test_taken_port_names_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert not port_is_free("127.0.0.1", port)
        with pytest.raises(Unavailable, match=str(port)) as caught:
            require_free("ret-0", "ret-0.port", "127.0.0.1", port)
    assert "port: 0" in (caught.value.hint or "")
    assert port_is_free("127.0.0.1", port)
