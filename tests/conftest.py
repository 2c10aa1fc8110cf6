"""What every test shares: calm thread pools, set before torch or faiss is imported."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from ragschema import procs

procs.calm_thread_pools(threads=1)

# A loaded machine is slow, not wrong: no test of ours asserts how long an example takes.
settings.register_profile(
    "ragrig",
    deadline=None,
    print_blob=True,
    suppress_health_check=(HealthCheck.too_slow,),
)
settings.load_profile("ragrig")


@pytest.fixture(autouse=True)
def _log_set_up_as_it_was() -> Iterator[None]:
    """A command line that ran inside a test must not leave its log handlers behind."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
