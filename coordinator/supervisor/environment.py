"""The environment of a node's process."""

from __future__ import annotations

import os
from collections.abc import Mapping


def child_environment(threads: int, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our own environment with calm thread pools and no network for models.

    Two OpenMP runtimes that spin while they wait slow each other down by
    orders of magnitude on a loaded machine, hence the passive wait policy.
    PYTHONSAFEPATH keeps a folder of the user's that happens to be named like
    one of our packages from being imported in its place. Nodes only fork to
    execute something else; gRPC's own handlers, which revive its threads in
    the child, crash that child while a stream is open.
    """
    env = dict(os.environ if base is None else base)
    count = str(threads)
    env.update(
        OMP_WAIT_POLICY="PASSIVE",
        OMP_NUM_THREADS=count,
        OPENBLAS_NUM_THREADS=count,
        MKL_NUM_THREADS=count,
        NUMBA_NUM_THREADS=count,
        TOKENIZERS_PARALLELISM="false",
        HF_HUB_OFFLINE="1",
        GRPC_ENABLE_FORK_SUPPORT="0",
        PYTHONUNBUFFERED="1",
        PYTHONSAFEPATH="1",
    )
    return env
