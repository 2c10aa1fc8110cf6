"""Versions exchanged between nodes."""

from __future__ import annotations

from typing import Final

SOFTWARE_VERSION: Final = "0.1.0"

#: Raised whenever a message of ``proto/`` changes its meaning.
PROTOCOL_VERSION: Final = 3
