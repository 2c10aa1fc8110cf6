"""``ragrig profile``: what each role of a rig costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli import options

Out = Annotated[
    Path, typer.Option(help="Profile to write; one that is there is merged with.", metavar="FILE")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Few points and repeats: within three minutes on two cores.")
]
Roles = Annotated[
    str | None,
    typer.Option(
        help="Only these: embed, index_scan, pq_scan, retrieval_call, generate, prefill, decode,"
        " mixed, crowded, kv_transfer, rerank, coordinator.",
        metavar="A,B",
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Replace the file, also one of another machine.")
]
Threads = Annotated[
    str | None,
    typer.Option(
        help="Measure each node with these numbers of threads. Default: those of the rig file.",
        metavar="1,2",
    ),
]
Vectors = Annotated[
    int | None,
    typer.Option(
        help="Vectors to search. Default: 100000, with --quick 40000.", min=2000, max=5_000_000
    ),
]
Dim = Annotated[int, typer.Option(help="Their length.", min=8, max=4096)]
Json = Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")]


def profile(
    config: options.Config = None,
    out: Out = Path("profile.json"),
    quick: Quick = False,
    roles: Roles = None,
    fresh: Fresh = False,
    vectors: Vectors = None,
    dim: Dim = 128,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Measure embedding, scanning, reading, writing and the calls around, and fit a model to each.

    Starts a rig of its own, like that of -c but with vectors made up for it, and stops it again.
    Without -c the default rig, with every backend that needs no further device.
    """
    # One thread, as the coordinator has; it must be set before numpy is loaded.
    from ragschema.procs import calm_thread_pools

    calm_thread_pools(1)
    from coordinator.cli.profiling import ProfileChoices, run_profile

    run_profile(ProfileChoices(config, out, quick, roles, fresh, vectors, dim, threads, json_))
