"""``ragrig ingest``: documents into a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from coordinator.cli import options


def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files and folders: .txt .md .html .pdf .docx .py .json .jsonl", exists=True
        ),
    ],
    collection: Annotated[
        str, typer.Option("--collection", help="Collection to fill; made when absent.")
    ],
    metric: Annotated[
        Literal["cosine", "ip", "l2"] | None,
        typer.Option(help="How vectors are compared, for a new collection. Default: cosine."),
    ] = None,
    nlist: Annotated[
        int | None,
        typer.Option(help="Inverted lists; without it chosen from the data.", min=1, max=1 << 20),
    ] = None,
    m: Annotated[
        int | None,
        typer.Option("--m", help="Bytes per PQ code; must divide the dimension.", min=1, max=4096),
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens per chunk, for a new collection.", min=16, max=8192),
    ] = None,
    chunk_overlap: Annotated[
        int | None,
        typer.Option(help="Tokens that neighbours share, at most half of --chunk-tokens.", min=0),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 when any file was skipped.")
    ] = False,
    no_prune: Annotated[
        bool,
        typer.Option("--no-prune", help="Keep documents whose files are gone from the folders."),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of a temporary embedder and of training.", min=1, max=1024),
    ] = None,
    config: options.Config = None,
    data_dir: options.DataDir = None,
) -> None:
    """Read documents into a collection; unchanged ones are skipped."""
    from coordinator.cli.ingesting import IngestChoices, ingest_paths
    from coordinator.cli.target import rig_of

    _check_overlap(chunk_tokens, chunk_overlap)
    choices = IngestChoices(
        sources=tuple(str(path.expanduser().absolute()) for path in paths),
        collection=collection,
        metric=metric,
        nlist=nlist,
        m=m,
        chunk_tokens=chunk_tokens,
        chunk_overlap=chunk_overlap,
        strict=strict,
        prune=not no_prune,
        threads=threads,
    )
    code = ingest_paths(rig_of(config, data_dir), choices)
    if code:
        raise typer.Exit(code)


def _check_overlap(tokens: int | None, overlap: int | None) -> None:
    from ragschema.storage.manifest import ChunkingConfig

    size = tokens or ChunkingConfig().tokens
    if overlap is not None and 2 * overlap > size:
        raise typer.BadParameter(
            f"{overlap} is more than half of the {size} tokens of a chunk",
            param_hint="--chunk-overlap",
        )
