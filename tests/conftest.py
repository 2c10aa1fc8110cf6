"""What every test shares: calm thread pools, set before torch or faiss is imported."""

from __future__ import annotations

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
