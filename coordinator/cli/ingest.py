"""``ragrig ingest``: documents into a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from coordinator.cli import options

Paths = Annotated[
    list[Path],
    typer.Argument(
        help="Files and folders: .txt .md .html .pdf .docx .py .json .jsonl", exists=True
    ),
]
Name = Annotated[
    str,
    typer.Option("--collection", help="Collection to fill; made when absent.", metavar="NAME"),
]
MetricName = Annotated[
    Literal["cosine", "ip", "l2"] | None,
    typer.Option(help="How vectors are compared, for a new collection. Default: cosine."),
]
Lists = Annotated[
    int | None,
    typer.Option(help="Inverted lists; without it chosen from the data.", min=1, max=1 << 20),
]
CodeBytes = Annotated[
    int | None,
    typer.Option("--m", help="Bytes per PQ code; must divide the dimension.", min=1, max=4096),
]
ChunkTokens = Annotated[
    int | None,
    typer.Option(help="Tokens per chunk, for a new collection.", min=16, max=8192),
]
ChunkOverlap = Annotated[
    int | None,
    typer.Option(help="Tokens that neighbours share, at most half of --chunk-tokens.", min=0),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 when any file was skipped.")]
NoPrune = Annotated[
    bool,
    typer.Option("--no-prune", help="Keep documents whose files are gone from the folders."),
]
Recall = Annotated[
    float | None,
    typer.Option(
        help="Share of the true nearest passages that searches of the collection shall reach,"
        " such as 0.95; kept until another is given.",
        min=0.01,
        max=1.0,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads of a temporary embedder and of training.", min=1, max=1024),
]


def ingest(
    paths: Paths,
    collection: Name,
    metric: MetricName = None,
    nlist: Lists = None,
    m: CodeBytes = None,
    chunk_tokens: ChunkTokens = None,
    chunk_overlap: ChunkOverlap = None,
    strict: Strict = False,
    no_prune: NoPrune = False,
    threads: Threads = None,
    recall: Recall = None,
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
        recall=recall,
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
