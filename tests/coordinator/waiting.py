"""Waiting for a state instead of for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 20.0


async def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Returns once it holds; fails after a time that only a defect needs."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"{what} never came true"
        await asyncio.sleep(0.01)
